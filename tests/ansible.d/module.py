"""Unit tests of the module hostgw: what it makes of the JSON documents of hostgw."""

import unittest

import hostgw


def change(action, before, after, reason="pods of node linux-2", **more):
    """Returns a change as `hostgw plan --json` prints it."""
    named = [text and {"name": text, "text": text} for text in (before, after)]
    entry = {"action": action, "kind": "route", "before": named[0], "after": named[1], "reason": reason, "drift": False}
    return dict(entry, **more)


def report(*changes):
    """Returns a plan as `hostgw plan --json` prints it."""
    totals = {"add": 0, "update": 0, "remove": 0, "conflicts": 0, "unknown": 0}
    for one in changes:
        totals[one["action"]] += 1
    return {"changes": list(changes), "totals": totals}


class Diffs(unittest.TestCase):
    def test_a_diff_has_the_objects_with_reasons(self):
        location = {"file": "hostgw.yaml", "line": 8}
        diff = hostgw.diff_of(
            report(
                change("add", None, "10.244.1.0/24 dev eth0", location=location),
                change("update", "net.ipv4.ip_forward = 0", "net.ipv4.ip_forward = 1", "forwarding", drift=True),
                change("remove", "10.244.2.0/24 dev eth0", None, "node linux-3 removed"),
            ),
            10,
        )
        self.assertEqual(diff["before"], "net.ipv4.ip_forward = 0\n10.244.2.0/24 dev eth0  # node linux-3 removed\n")
        self.assertEqual(
            diff["after"],
            "10.244.1.0/24 dev eth0  # pods of node linux-2, hostgw.yaml:8\nnet.ipv4.ip_forward = 1  # drift: forwarding\n",
        )

    def test_a_line_of_an_earlier_configuration_is_not_named(self):
        location = {"file": "hostgw.yaml", "line": 8, "transactionId": 3}
        diff = hostgw.diff_of(report(change("remove", "a", None, "removed", location=location)), 10)
        self.assertEqual(diff["before"], "a  # removed\n")

    def test_a_long_diff_keeps_the_removals(self):
        changes = [change("add", None, "add {0}".format(number)) for number in range(5)] + [change("remove", "old", None)]
        diff = hostgw.diff_of(report(*changes), 3)
        self.assertEqual(diff["before"], "old  # pods of node linux-2\n")
        self.assertEqual(diff["after"].splitlines()[2:], ["(3 more changes)"])
        self.assertTrue(diff["after"].startswith("add 0  #"))
        self.assertEqual(hostgw.diff_of(report(*changes), 5)["after"].splitlines()[-1], "(1 more change)")

    def test_totals(self):
        totals = hostgw.totals_of(report(change("add", None, "a"), change("remove", "b", None)))
        self.assertEqual(totals, {"add": 1, "update": 0, "remove": 1})
        self.assertEqual(hostgw.plan_message(totals), "Plan: 1 to add, 0 to update, 1 to remove.")
        nothing = hostgw.totals_of(report())
        self.assertEqual(hostgw.plan_message(nothing), "No changes. This node matches the configuration.")


class Failures(unittest.TestCase):
    def test_an_error_has_its_details_and_its_remedy(self):
        cause = {"message": "the cause", "details": []}
        error = {"message": "cannot apply", "details": ["why"], "remedy": "do that", "cause": cause}
        message = hostgw.failure_message({"error": error}, 6, "")
        self.assertEqual(message, "cannot apply\nwhy\nthe cause\nhelp: do that")

    def test_errors_of_a_configuration_have_their_places(self):
        errors = [
            {"location": {"file": "hostgw.yaml", "line": line}, "message": text} for line, text in ((4, "no"), (None, "none"))
        ]
        message = hostgw.failure_message({"error": {"message": "invalid", "details": [], "errors": errors}}, 3, "")
        self.assertEqual(message, "invalid\nhostgw.yaml:4: no\nhostgw.yaml: none")

    def test_errors_of_a_validated_file_are_listed(self):
        error = {"message": "invalid", "details": [], "errors": [{"location": {"file": "hostgw.yaml", "line": 4}, "message": "no"}]}
        document = {"error": {"message": "1 of 1 file are invalid", "details": []}, "files": [{"error": error}]}
        self.assertEqual(hostgw.failure_message(document, 3, ""), "invalid\nhostgw.yaml:4: no")

    def test_conflicts_are_listed(self):
        plan = dict(report(), conflicts=[{"text": "10.244.1.0/24 via 172.30.0.1"}])
        for document in (plan, {"planned": plan}):
            self.assertIn("\n! 10.244.1.0/24 via 172.30.0.1", hostgw.failure_message(document, 10, ""))

    def test_unknown_parts_are_named(self):
        plan = dict(report(), unknown=[{"reason": "reading nf_tables requires CAP_NET_ADMIN"}])
        self.assertIn("reading nf_tables requires CAP_NET_ADMIN", hostgw.failure_message(plan, 9, ""))

    def test_the_commands_that_finish_a_rollback_are_listed(self):
        document = {"error": {"message": "rollback incomplete", "details": []}, "remainingCommands": ["ip route delete 10.244.1.0/24"]}
        message = hostgw.failure_message(document, 7, "")
        self.assertEqual(message, "rollback incomplete\nTo finish the rollback, run:\nip route delete 10.244.1.0/24")

    def test_without_a_document_the_messages_count(self):
        self.assertEqual(hostgw.failure_message(None, 64, "error: unexpected argument\n"), "error: unexpected argument")
        self.assertEqual(hostgw.failure_message(None, 137, ""), "hostgw exited with code 137")

    def test_long_lists_are_cut(self):
        self.assertEqual(hostgw.listed(["a"] * 25)[-1], "(5 more)")
        self.assertEqual(len(hostgw.listed(["a"] * 20)), 20)


class Findings(unittest.TestCase):
    def test_errors_count_unless_they_are_ignored(self):
        findings = [{"code": "HG0001", "severity": "error"}, {"code": "HG0002", "severity": "warning"}]
        codes = lambda *arguments: [one["code"] for one in hostgw.failing_findings(findings, *arguments)]
        self.assertEqual(codes([], "error"), ["HG0001"])
        self.assertEqual(codes([], "warning"), ["HG0001", "HG0002"])
        self.assertEqual(codes(["HG0001"], "error"), [])


class Undoing(unittest.TestCase):
    def step(self, ids, pending, since):
        return hostgw.undo_step([{"id": number} for number in ids], pending and {"id": pending}, since)

    def test_only_what_is_newer_is_undone(self):
        self.assertEqual(self.step([3, 2], None, 2), ("rollback", 3))
        self.assertEqual(self.step([2], None, 2), (None, None))
        self.assertEqual(self.step([], None, 0), (None, None))
        self.assertEqual(self.step([3], 3, 2), ("cancel", 3))
        self.assertEqual(self.step([2], 2, 2), (None, None))

    def test_the_changes_of_others_are_not_undone(self):
        with self.assertRaisesRegex(ValueError, "transactions 3, 4 are newer than 2"):
            self.step([4, 3, 2], None, 2)

    def test_the_newest_transaction(self):
        self.assertEqual(hostgw.newest_of({"transactions": []}), 0)
        self.assertEqual(hostgw.newest_of({"transactions": [{"id": 4}, {"id": 3}]}), 4)


class Documents(unittest.TestCase):
    def test_only_json_is_a_document(self):
        self.assertEqual(hostgw.parsed('{"format": 1}'), {"format": 1})
        self.assertIsNone(hostgw.parsed("error"))
        self.assertIsNone(hostgw.parsed(""))


if __name__ == "__main__":
    unittest.main()
