#!/usr/bin/python
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Ansible module that runs hostgw on a node, and returns its JSON output as results."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: hostgw
short_description: Plan, apply, confirm and roll back host-gateway networking
description:
  - Runs C(hostgw) on a Linux node, and reports what it would change or has changed.
  - Works with the text of a configuration, so you need not copy the file to the node before a change is confirmed.
version_added: "0.1.0"
author:
  - The hostgw authors
options:
  action:
    description:
      - V(validate) checks the configuration. It runs on any machine, without root.
      - V(plan) compares the configuration with the live state of the node.
      - V(apply) makes the node match the configuration. In check mode, it plans.
      - V(confirm) confirms the pending apply with the O(id) that V(apply) returned, so that it is not rolled back.
      - V(rollback) undoes the most recent apply or destroy. With O(since), it undoes only a newer one.
      - V(doctor) looks for problems with pod traffic. Fails if it finds an error; see O(fail_on) and O(ignore).
      - V(status) reports the newest transaction, the pending apply, drift, and the state of the agent.
      - V(snapshot) returns the live state of the node, for C(hostgw audit) or C(hostgw plan --state) on another machine.
      - V(destroy) removes everything that hostgw manages on the node.
    type: str
    required: true
    choices: [validate, plan, apply, confirm, rollback, doctor, status, snapshot, destroy]
  config:
    description:
      - The text of the configuration, for example from P(ansible.builtin.file#lookup). It is not logged, because it can be large.
      - Required by V(validate), V(plan), V(apply) and V(doctor).
    type: str
  config_name:
    description:
      - The file name of the configuration, for messages and the history. Its extension determines the format.
    type: str
    default: hostgw.yaml
  node:
    description:
      - The name of the node in the configuration.
      - By default, the node with one of the machine's addresses, or else with its hostname.
    type: str
  confirm:
    description:
      - Roll back the apply after this number of seconds, unless it is confirmed. See O(action=confirm).
      - The module returns as soon as the apply is in effect. A process on the node rolls it back at the deadline.
    type: int
  id:
    description:
      - The ID of the apply to confirm.
    type: int
  since:
    description:
      - The ID of the RV(newest) transaction to keep. If there is no newer one, nothing is rolled back.
    type: int
  adopt:
    description:
      - Take over foreign objects that conflict with the plan.
    type: bool
    default: false
  allow_removals:
    description:
      - Allow a mass removal. This is the exact number of routes that the plan removes.
    type: int
  ignore:
    description:
      - Codes of findings that do not make V(doctor) fail, such as V(HG0852).
    type: list
    elements: str
    default: []
  fail_on:
    description:
      - The lowest severity that makes V(doctor) fail.
    type: str
    choices: [error, warning]
    default: error
  lock_timeout:
    description:
      - How long to wait for other hostgw commands to finish, in seconds.
    type: int
    default: 30
  diff_lines:
    description:
      - The maximum number of changes in a diff. Removals come first.
    type: int
    default: 1000
  executable:
    description:
      - The hostgw program. A name without a slash is looked up in the V(PATH), in V(/usr/local/bin) and in V(/usr/bin).
    type: str
    default: hostgw
attributes:
  check_mode:
    support: full
    description: Reports what would change, and changes nothing. On a node without hostgw, the changes are unknown.
  diff_mode:
    support: full
    description: Shows the changed objects, each with the reason and the line of the configuration.
"""

EXAMPLES = r"""
- name: Show what would change
  hostgw:
    action: plan
    config: "{{ lookup('ansible.builtin.file', 'hostgw.yaml') }}"

- name: Apply, and roll back after 90 seconds without a confirmation
  hostgw:
    action: apply
    config: "{{ lookup('ansible.builtin.file', 'hostgw.yaml') }}"
    confirm: 90
  register: applied

- name: Close the connection, so that the next task opens a new one
  ansible.builtin.meta: reset_connection

- name: Confirm
  hostgw:
    action: confirm
    id: "{{ applied.id }}"
  when: applied.id is not none
"""

RETURN = r"""
id:
  description: The ID of the transaction that was created, confirmed or undone.
  returned: V(apply), V(confirm), V(rollback), V(destroy)
  type: int
  sample: 3
deadline:
  description: When the pending apply is rolled back unless it is confirmed.
  returned: V(apply) with O(confirm), if something was changed
  type: str
  sample: "2026-11-28T09:34:05Z"
newest:
  description: The ID of the newest transaction, which a rollback would undo, or 0.
  returned: V(status)
  type: int
  sample: 2
pending:
  description: The pending apply, as C(hostgw status --json) prints it, or null.
  returned: V(status)
  type: dict
agent:
  description: The agent, as C(hostgw status --json) prints it, or null.
  returned: V(status)
  type: dict
totals:
  description: The numbers of changes.
  returned: V(plan), V(apply), V(rollback), V(destroy), V(status)
  type: dict
  sample: {add: 6, update: 1, remove: 0}
findings:
  description: The findings of C(hostgw doctor), as C(hostgw doctor --json) prints them.
  returned: V(doctor)
  type: list
  elements: dict
snapshot:
  description: The live state of the node as JSON text.
  returned: V(snapshot)
  type: str
exit_code:
  description: The exit code of hostgw, which C(hostgw help exit-codes-and-json) explains.
  returned: if hostgw ran
  type: int
  sample: 0
"""

import hashlib
import json
import os
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule

MAX_LISTED = 20
"""How many conflicts, errors or findings a message lists."""


def totals_of(report):
    """Returns the numbers of changes in a plan."""
    totals = report["totals"]
    return dict((name, totals[name]) for name in ("add", "update", "remove"))


def counted(number, noun):
    """Returns a number and a noun, such as "1 node" or "2 nodes"."""
    return "{0} {1}{2}".format(number, noun, "" if number == 1 else "s")


def plan_message(totals):
    """Returns a summary of a plan."""
    if not any(totals.values()):
        return "No changes. This node matches the configuration."
    return "Plan: {add} to add, {update} to update, {remove} to remove.".format(**totals)


def commented(item, change):
    """Returns an object as a line of a diff, with the reason of its change."""
    reason = change["reason"]
    location = change.get("location")
    if location and location.get("transactionId") is None:
        reason += ", {file}:{line}".format(**location)
    if change["drift"] and not reason.startswith("drift"):
        reason = "drift: " + reason
    return item["text"] + ("  # " + reason if reason else "") + "\n"


def diff_of(report, limit):
    """Returns the changes of a plan as a diff. If there are more than `limit`, removals come first."""
    changes = report["changes"]
    omitted = len(changes) - limit
    if omitted > 0:
        changes = sorted(changes, key=lambda change: change["action"] != "remove")[:limit]
    before, after = [], []
    for change in changes:
        old, new = change.get("before"), change.get("after")
        if old:
            before.append(old["text"] + "\n" if new else commented(old, change))
        if new:
            after.append(commented(new, change))
    if omitted > 0:
        after.append("({0})\n".format(counted(omitted, "more change")))
    return {"before": "".join(before), "after": "".join(after), "before_header": "live", "after_header": "configured"}


def listed(lines):
    """Returns the lines, or the first ones and how many more there are."""
    omitted = len(lines) - MAX_LISTED
    return lines[:MAX_LISTED] + (["({0} more)".format(omitted)] if omitted > 0 else [])


def error_lines(error):
    """Returns an error of hostgw as lines: what failed, the details, and the remedy."""
    lines = [error["message"]] + [str(detail) for detail in error.get("details") or []]
    errors = []
    for item in error.get("errors") or []:
        location = item["location"]
        place = location["file"] if location.get("line") is None else "{file}:{line}".format(**location)
        errors.append("{0}: {1}".format(place, item["message"]))
    lines += listed(errors)
    if error.get("cause"):
        lines += error_lines(error["cause"])
    if error.get("remedy"):
        lines.append("help: " + error["remedy"])
    return lines


def failure_message(document, code, stderr):
    """Returns why hostgw failed, from its JSON output or else from its messages."""
    document = document or {}
    report = document.get("planned") or document
    lines = []
    errors = [one["error"] for one in document.get("files") or [] if one.get("error")] or [document.get("error")]
    for error in errors:
        lines += error_lines(error) if error else []
    conflicts = report.get("conflicts") or []
    if conflicts:
        lines = (lines or ["conflict with objects that hostgw does not manage"]) + listed(
            ["! " + conflict["text"] for conflict in conflicts]
        )
    unknown = report.get("unknown") or []
    if unknown and not lines:
        lines = ["part of the live state could not be read"] + [part["reason"] for part in unknown]
    if document.get("remainingCommands"):
        lines += ["To finish the rollback, run:"] + listed(document["remainingCommands"])
    if not lines:
        lines = stderr.strip().splitlines()[-MAX_LISTED:] or ["hostgw exited with code {0}".format(code)]
    return "\n".join(lines)


def failing_findings(findings, ignore, fail_on):
    """Returns the findings that make an examination fail."""
    severities = ("error", "warning") if fail_on == "warning" else ("error",)
    return [one for one in findings if one["severity"] in severities and one["code"] not in ignore]


def finding_text(finding):
    """Returns a finding as text, with its remedy."""
    text = "{severity}[{code}]: {message}".format(**finding)
    return text + ("\nhelp: " + finding["remedy"] if finding.get("remedy") else "")


def newest_of(history):
    """Returns the ID of the newest transaction in a history, or 0."""
    return max([one["id"] for one in history["transactions"]] or [0])


def undo_step(transactions, pending, since):
    """Returns how to undo what is newer than `since`: `cancel`, `rollback`, or nothing, and the ID of the transaction."""
    if pending and pending["id"] > since:
        return "cancel", pending["id"]
    newer = [one["id"] for one in transactions if one["id"] > since]
    if len(newer) > 1:
        raise ValueError(
            "transactions {0} are newer than {1}, so this node was also changed outside this rollout; review "
            "`hostgw status --history` on the node, then run `hostgw rollback` there".format(
                ", ".join(str(one) for one in sorted(newer)), since
            )
        )
    return ("rollback", newer[0]) if newer else (None, None)


class Hostgw(object):
    """Runs hostgw for a module."""

    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.folder = None
        name = self.params["executable"]
        if "/" in name:
            self.program = name if os.access(name, os.X_OK) else None
        else:
            self.program = module.get_bin_path(name, opt_dirs=["/usr/local/bin", "/usr/bin"])

    def write_config(self):
        """Writes the configuration to a temporary file, and returns the options that name it."""
        name = os.path.basename(self.params["config_name"])
        self.folder = tempfile.mkdtemp(dir=self.module.tmpdir)
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(self.params["config"].encode("utf-8"))
        return ["--file", name]

    def node_options(self):
        """Returns the options that choose the node, and the configuration."""
        options = self.write_config()
        return options + (["--node", self.params["node"]] if self.params["node"] else [])

    def lock_options(self):
        """Returns the option for the time to wait for other commands."""
        return ["--lock-timeout", "{0}s".format(self.params["lock_timeout"])]

    def run(self, *arguments):
        """Runs hostgw, and returns its exit code, its document and its messages."""
        command = [self.program] + list(arguments) + ["--json"]
        code, stdout, stderr = self.module.run_command(command, cwd=self.folder, environ_update={"NO_COLOR": "1"})
        return code, parsed(stdout), stderr

    def fail(self, code, document, stderr, **results):
        """Ends the module with the error of hostgw."""
        self.module.fail_json(msg=failure_message(document, code, stderr), exit_code=code, **results)

    def expect(self, *arguments):
        """Runs hostgw, and returns its document. If hostgw fails, so does the module."""
        code, document, stderr = self.run(*arguments)
        if code != 0 or document is None:
            self.fail(code, document, stderr)
        return document

    def results_of(self, report):
        """Returns the results for a plan."""
        for warning in listed([finding["message"] for finding in report.get("findings") or []]):
            self.module.warn(warning)
        totals = totals_of(report)
        results = {"changed": any(totals.values()), "totals": totals, "msg": plan_message(totals)}
        if self.module._diff and results["changed"]:  # pylint: disable=protected-access
            results["diff"] = diff_of(report, self.params["diff_lines"])
        return results

    def validate(self):
        name = self.write_config()[1]
        document = self.expect("validate", name)
        nodes = document["files"][0]["nodes"]
        return {"changed": False, "msg": "{0} is valid: {1}".format(name, counted(nodes, "node"))}

    def plan_options(self):
        return self.node_options() + (["--adopt"] if self.params["adopt"] else [])

    def plan(self):
        code, document, stderr = self.run("plan", *self.plan_options())
        if code != 0 or document is None:
            results = {}
            if document and document.get("totals") and self.module._diff:  # pylint: disable=protected-access
                results["diff"] = diff_of(document, self.params["diff_lines"])
            self.fail(code, document, stderr, **results)
        return self.results_of(document)

    def apply(self):
        if self.module.check_mode:
            return self.plan()
        arguments = ["apply", "--yes"] + self.plan_options() + self.lock_options()
        if self.params["allow_removals"] is not None:
            arguments += ["--allow-removals", str(self.params["allow_removals"])]
        if self.params["confirm"]:
            return self.apply_pending(arguments + ["--confirm", "{0}s".format(self.params["confirm"])])
        return self.applied(*self.run(*arguments))

    def applied(self, code, document, stderr):
        """Returns the results of an apply that has ended."""
        if code != 0 or document is None:
            self.fail(code, document, stderr, changed=bool(document and document.get("done")))
        results = self.results_of(document["planned"])
        results["id"] = document.get("transactionId") if results["changed"] else None
        if results["changed"]:
            done = document["done"]
            results["msg"] = "Applied and verified: {add} added, {change} updated, {remove} removed.".format(**done)
        for warning in listed(document.get("warnings") or []):
            self.module.warn(warning)
        return results

    def apply_pending(self, arguments):
        """Applies, and returns as soon as the apply is pending. The command keeps waiting for its confirmation."""
        before = self.expect("status")
        if before.get("pending"):
            self.module.fail_json(msg="another apply is pending: apply {id} rolls back at {deadline}".format(**before["pending"]))
        results = self.plan()
        if not results["changed"]:
            return dict(results, id=None)
        wanted = hashlib.sha256(self.params["config"].encode("utf-8")).hexdigest()
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr, open(os.devnull) as nothing:
            command = [self.program] + arguments + ["--json"]
            environment = dict(os.environ, NO_COLOR="1")
            # A session of its own: the command outlives this module and the connection.
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=nothing,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            while child.poll() is None:
                pending = self.expect("status").get("pending")
                if pending and pending.get("configHash") == wanted:
                    results["id"], results["deadline"] = pending["id"], pending["deadline"]
                    results["msg"] = "Apply {id} is in effect and rolls back at {deadline} unless it is confirmed.".format(
                        **pending
                    )
                    return results
                time.sleep(0.1)
            stdout.seek(0)
            stderr.seek(0)
            messages = stderr.read().decode("utf-8", "replace")
            return self.applied(child.returncode, parsed(stdout.read().decode("utf-8", "replace")), messages)

    def confirm(self):
        number = self.params["id"]
        if self.module.check_mode:
            return {"changed": True, "id": number, "msg": "Apply {0} would be confirmed.".format(number)}
        self.expect("confirm", str(number), *self.lock_options())
        return {"changed": True, "id": number, "msg": "Confirmed apply {0}: it will not be rolled back.".format(number)}

    def rollback(self):
        since = self.params["since"]
        if since is None:
            return self.undo("rollback", None)
        history = self.expect("status", "--history")
        status = self.expect("status")
        try:
            step, number = undo_step(history["transactions"], status.get("pending"), since)
        except ValueError as error:
            return self.module.fail_json(msg=str(error))
        if step is None:
            unconfirmed = status.get("unconfirmed")
            if unconfirmed and unconfirmed["id"] > since:
                if unconfirmed.get("failure"):
                    self.module.fail_json(msg="the rollback is incomplete: {0}".format(unconfirmed["failure"]))
                text = "Apply {id} was not confirmed by {deadline}: this node has rolled back by itself.".format(**unconfirmed)
                return {"changed": False, "id": unconfirmed["id"], "msg": text}
            return {"changed": False, "id": None, "msg": "Nothing to roll back."}
        return self.undo(step, number)

    def undo(self, step, number):
        """Rolls back the last transaction, or cancels the pending one."""
        if self.module.check_mode:
            document = self.expect("rollback", "--dry-run", *self.lock_options())
        elif step == "cancel":
            document = self.expect("cancel", str(number), *self.lock_options())
        else:
            document = self.expect("rollback", "--yes", *self.lock_options())
        return self.undone(document, "Rolled back {0} and verified: this node is in its previous state.")

    def destroy(self):
        flag = "--dry-run" if self.module.check_mode else "--yes"
        document = self.expect("destroy", flag, *self.lock_options())
        return self.undone(document, "Removed everything that hostgw managed.")

    def undone(self, document, text):
        """Returns the results of a command that removes or restores objects."""
        results = {"changed": document.get("transactionId") is not None, "msg": "No changes."}
        if document.get("planned"):
            results = self.results_of(document["planned"])
        results["id"] = document.get("transactionId")
        if results["changed"] and not self.module.check_mode:
            results["msg"] = text.format("apply {0}".format(results["id"]) if results["id"] else "the last apply")
        return results

    def doctor(self):
        code, document, stderr = self.run("doctor", *self.node_options())
        if code not in (0, 11) or document is None:
            self.fail(code, document, stderr)
        findings = document["findings"]
        serious = failing_findings(findings, self.params["ignore"], self.params["fail_on"])
        results = {"changed": False, "findings": findings[:MAX_LISTED], "exit_code": code}
        if serious:
            self.module.fail_json(msg="\n".join(listed([finding_text(one) for one in serious])), **results)
        for finding in findings[:MAX_LISTED]:
            self.module.warn(finding_text(finding))
        results["msg"] = "{0}, none severe enough to fail.".format(counted(len(findings), "finding")) if findings else "No findings."
        return results

    def status(self):
        status, history = self.expect("status"), self.expect("status", "--history")
        totals = totals_of(status["drift"]) if status.get("drift") else {"add": 0, "update": 0, "remove": 0}
        drift = any(totals.values())
        return {
            "changed": False,
            "newest": newest_of(history),
            "pending": status.get("pending"),
            "agent": status.get("agent"),
            "totals": totals,
            "msg": "Drift: {add} to add, {update} to update, {remove} to remove.".format(**totals) if drift else "No drift.",
        }

    def snapshot(self):
        code, stdout, stderr = self.module.run_command([self.program, "snapshot"])
        if code != 0:
            self.fail(code, None, stderr)
        return {"changed": False, "snapshot": stdout, "msg": "Collected the live state."}


def parsed(text):
    """Returns the JSON document that hostgw printed, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def main():
    module = AnsibleModule(
        argument_spec={
            "action": {
                "type": "str",
                "required": True,
                "choices": ["validate", "plan", "apply", "confirm", "rollback", "doctor", "status", "snapshot", "destroy"],
            },
            # Not a secret, but too large for logs and results.
            "config": {"type": "str", "no_log": True},
            "config_name": {"type": "str", "default": "hostgw.yaml"},
            "node": {"type": "str"},
            "confirm": {"type": "int"},
            "id": {"type": "int"},
            "since": {"type": "int"},
            "adopt": {"type": "bool", "default": False},
            "allow_removals": {"type": "int"},
            "ignore": {"type": "list", "elements": "str", "default": []},
            "fail_on": {"type": "str", "choices": ["error", "warning"], "default": "error"},
            "lock_timeout": {"type": "int", "default": 30},
            "diff_lines": {"type": "int", "default": 1000},
            "executable": {"type": "str", "default": "hostgw"},
        },
        required_if=[
            ("action", "validate", ["config"]),
            ("action", "plan", ["config"]),
            ("action", "apply", ["config"]),
            ("action", "doctor", ["config"]),
            ("action", "confirm", ["id"]),
        ],
        supports_check_mode=True,
    )
    hostgw = Hostgw(module)
    if hostgw.program is None:
        message = "hostgw is not installed on this node"
        if module.check_mode:
            module.exit_json(changed=True, msg=message + " yet, so its plan is unknown")
        module.fail_json(msg="{0}: no {1} in the PATH".format(message, module.params["executable"]))
    results = getattr(hostgw, module.params["action"])()
    results.setdefault("exit_code", 0)
    module.exit_json(**results)


if __name__ == "__main__":
    main()
