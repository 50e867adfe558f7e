//! Commands that somebody may paste into a shell.

use std::fmt;

use super::printable;

/// A word of a command, which any sh reads as exactly the text that it was made from.
///
/// It holds the quoted form alone, and there is no other way to make one: text of others cannot reach a shell
/// unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellWord(String);

impl ShellWord {
    /// The word for `text`. It prints on one line and cannot drive a terminal: what is not printable becomes an
    /// escape of printf(1), but for line breaks at the end, which a shell would drop there. `text` holds no NUL,
    /// which no word of a shell can hold.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
        Self(if !text.is_empty() && text.chars().all(is_plain) {
            text.to_owned()
        } else if printable(text) == text || text.ends_with('\n') {
            format!("'{}'", text.replace('\'', r"'\''"))
        } else {
            by_printf(text)
        })
    }
}

/// A word that printf(1) makes of plain characters.
fn by_printf(text: &str) -> String {
    let octal: String = text.bytes().map(|byte| format!("\\0{byte:03o}")).collect();
    format!("\"$(printf %b '{octal}')\"")
}

impl fmt::Display for ShellWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command line, or what a person has to do where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    words: Vec<ShellWord>,
    by_hand: Option<&'static str>,
}

impl ShellCommand {
    /// The command of these words.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { words: words.into_iter().map(ShellWord::new).collect(), by_hand: None }
    }

    /// A comment that a shell skips: the words say what to do, and `why` there is no command for it.
    pub fn by_hand<'a>(why: &'static str, words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { by_hand: Some(why), ..Self::new(words) }
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.by_hand {
            write!(f, "# by hand, {why}: ")?;
        }
        for (at, word) in self.words.iter().enumerate() {
            write!(f, "{}{word}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// The words that a real sh makes of a command line.
    fn read_by_sh(command: &ShellCommand) -> Vec<String> {
        let script = format!("words() {{ for word; do printf '%s\\0' \"$word\"; done; }}; words {command}");
        let output = Command::new("sh").args(["-ec", &script]).output().expect("sh");
        assert!(output.status.success(), "{command}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.split_terminator('\0').map(ToOwned::to_owned).collect()
    }

    /// Names as an attacker would choose them, and any others.
    fn word() -> impl Strategy<Value = String> {
        let hostile = prop::sample::select(vec![
            "x$(id)",
            "`id`",
            "a;b",
            "a b",
            "'",
            "\"",
            "\\",
            "#",
            "~",
            "*",
            "$HOME",
            "-n",
            "",
            "\n",
            "a\n",
            "\u{1b}[2J",
            "\u{202e}",
            "!",
            "a'b\"c",
            "&",
            "|",
            "{a,b}",
            "é",
        ]);
        prop_oneof![
            hostile.prop_map(ToOwned::to_owned),
            prop::collection::vec(any::<char>().prop_filter("no NUL", |c| *c != '\0'), 0..12)
                .prop_map(|chars| chars.into_iter().collect()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn a_shell_reads_every_word_as_it_was_meant(words in prop::collection::vec(word(), 1..6)) {
            let command = ShellCommand::new(words.iter().map(String::as_str));
            prop_assert_eq!(&read_by_sh(&command), &words);
            if words.iter().all(|word| !word.ends_with('\n')) {
                let text = command.to_string();
                prop_assert_eq!(printable(&text), text.clone(), "on one line, and harmless on a terminal");
            }
        }

        #[test]
        fn a_shell_runs_nothing_of_what_is_to_be_done_by_hand(
            words in prop::collection::vec(word().prop_filter("one line", |word| !word.ends_with('\n')), 1..6),
        ) {
            let command = ShellCommand::by_hand("for a test", words.iter().map(String::as_str));
            let output = Command::new("sh").args(["-ec", &command.to_string()]).output().expect("sh");
            prop_assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
        }
    }

    #[test]
    fn plain_words_are_not_quoted() {
        let command = ShellCommand::new(["ip", "route", "del", "10.244.1.0/24", "dev", "x$(id)"]);
        assert_eq!(command.to_string(), "ip route del 10.244.1.0/24 dev 'x$(id)'");
        assert_eq!(ShellCommand::new(["sysctl", "-w", "net.a=1 2"]).to_string(), "sysctl -w 'net.a=1 2'");
    }
}
