//! The small PowerShell does as PowerShell does, where that surprises.

use super::{Fault, Machine, lint, parse, run};

/// What a script prints, and how it ends.
fn printed(text: &str) -> String {
    let mut machine = Machine { is_administrator: true, ..Machine::default() };
    let outcome = run(&mut machine, text, &[]);
    format!("{}{:?}", outcome.stdout, outcome.code.unwrap())
}

/// Snippets with what they print, and the rule (about_* are chapters of PowerShell's documentation).
const RULES: [(&str, &str, &str); 20] = [
    (
        "function F { return @('a') }\nWrite-Host ((F) + 'b')",
        "ab\n0",
        "about_Return: a collection of one is taken apart",
    ),
    (
        "function F { return ,@('a') }\nWrite-Host (F).Count",
        "1\n0",
        "about_Arrays: the comma keeps it a collection",
    ),
    (
        "function F { }\nif ($null -eq (F)) { Write-Host 'nothing' }",
        "nothing\n0",
        "a function without output is null",
    ),
    (
        "function F { 'x'; return 'y' }\nWrite-Host ((F) -join '+')",
        "x+y\n0",
        "about_Return: every value is output",
    ),
    (
        "$list = New-Object System.Collections.ArrayList\nfunction F { $list.Add('x') }\nWrite-Host (F)",
        "0\n0",
        "Add leaves the place",
    ),
    (
        "$x = 1\nfunction F { $x = 2 }\nF\nWrite-Host ([string] $x)",
        "1\n0",
        "about_Scopes: an assignment is local",
    ),
    (
        "$x = 'a'\nfunction F { Write-Host $x }\nfunction G { $x = 'b'; F }\nG",
        "b\n0",
        "about_Scopes: callers' variables are seen",
    ),
    ("Write-Host ([string] 1 + ' ' + 2)", "1 2\n0", "the left side decides what + does"),
    (
        "$h = @{ A = 1 }\nif ($h.ContainsKey('a')) { Write-Host 'same' }",
        "same\n0",
        "about_Hash_Tables: keys without case",
    ),
    (
        "$h = @{}\n$h[1] = 'number'\nif ($null -eq $h['1']) { Write-Host 'other' }",
        "other\n0",
        "keys have types",
    ),
    (
        "if ('A' -eq 'a') { Write-Host 'same' }\nif ('A' -ceq 'a') { Write-Host 'never' }",
        "same\n0",
        "about_Comparison_Operators",
    ),
    ("if (@('x') -contains 'X') { Write-Host 'in' }", "in\n0", "about_Comparison_Operators: -contains"),
    ("try { throw 'why' } catch { Write-Host $_.Exception.Message }", "why\n0", "about_Try_Catch_Finally"),
    (
        "try { try { throw 'why' } finally { Write-Host 'last' } } catch { Write-Host 'caught' }",
        "last\ncaught\n0",
        "finally comes first",
    ),
    (
        "function F { try { return 'x' } finally { Write-Host 'last' } }\nWrite-Host (F)",
        "last\nx\n0",
        "finally after return",
    ),
    ("function F { exit 7 }\ntry { F } catch { Write-Host 'never' }", "7", "exit is no error"),
    (
        "$j = ConvertFrom-Json (ConvertTo-Json @{ A = @(1) } -Depth 3)\nWrite-Host ([string] @($j.A).Count)",
        "1\n0",
        "a list of one stays one",
    ),
    (
        "try { $h = @{}; $h.Missing } catch { Write-Host 'strict' }",
        "strict\n0",
        "Set-StrictMode 2: no such property",
    ),
    ("try { $x = $never } catch { Write-Host 'strict' }", "strict\n0", "Set-StrictMode 1: no such variable"),
    ("Write-Host ('it''s ' + [char] 0x41)", "it's A\n0", "about_Quoting_Rules"),
];

#[test]
fn it_surprises_where_powershell_does() {
    for (text, expected, rule) in RULES {
        let text = if text.contains("exit") { text.to_owned() } else { format!("{text}\nexit 0") };
        assert_eq!(printed(&text), expected, "{rule}: {text}");
    }
}

/// What it does not know is no test that passes.
#[test]
fn what_is_not_known_fails_the_test() {
    for text in [
        "Get-Process\nexit 0",
        "$x = 'a' -match 'b'\nexit 0",
        "$x = \"$y\"\nexit 0",
        "while ($true) { }\nexit 0",
        "Get-NetRoute -PolicyStore ActiveStore\nexit 0",
        "Remove-NetRoute -Confirm:$false -ErrorAction Stop\nexit 0",
        "Write-Host 'no end'",
    ] {
        let run = std::panic::catch_unwind(|| printed(text));
        assert!(run.is_err(), "{text}");
    }
}

#[test]
fn a_kill_runs_nothing_more_and_control_c_runs_finally_alone() {
    let text = "try { [System.IO.File]::WriteAllText('C:\\x', 'y') } catch { Write-Host 'catch' } finally { Write-Host 'finally' }\nexit 0";
    for (fault, said) in [(Fault::Kill, ""), (Fault::Stop, "finally\n"), (Fault::Refuse, "catch\nfinally\n")]
    {
        let mut machine = Machine { faults: [(0, fault)].into(), ..Machine::default() };
        assert_eq!(run(&mut machine, text, &[]).stdout, said);
        assert!(machine.files.is_empty());
    }
}

/// What would touch more than one route is found, whichever way it is written.
#[test]
fn the_lint_finds_what_means_every_route() {
    for (text, finding) in [
        ("Remove-NetRoute -Confirm:$false -ErrorAction Stop", "no -interfaceindex"),
        (
            "Set-NetRoute -InterfaceIndex 1 -DestinationPrefix $d -NextHop $n -ErrorAction Stop -PolicyStore ActiveStore",
            "would ask",
        ),
        (
            "$a = @{ InterfaceIndex = 1; Confirm = $false; ErrorAction = 'Stop' }\nRemove-NetRoute @a -PolicyStore ActiveStore",
            "no -destinationprefix",
        ),
        ("function F { Remove-NetRoute @given -PolicyStore ActiveStore }", "no -interfaceindex"),
        (
            "Set-NetIPInterface -InterfaceIndex 1 -Forwarding Enabled -Confirm:$false -ErrorAction Stop",
            "no -addressfamily",
        ),
        (
            "New-NetRoute -InterfaceIndex 1 -DestinationPrefix '*' -NextHop $n -RouteMetric 1 -Confirm:$false -ErrorAction Stop",
            "a pattern",
        ),
        ("Get-NetIPAddress", "goes on after an error"),
        ("iex $x", "makes code of text"),
    ] {
        let (tree, wrong) = parse(text);
        assert!(wrong.is_empty(), "{wrong:?}");
        let found = lint(text, &tree);
        assert!(found.iter().any(|line| line.contains(finding)), "{text}: {found:?}");
    }
}
