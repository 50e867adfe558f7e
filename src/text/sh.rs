//! Commands to paste into a shell.

use std::fmt;

use super::printable;

/// An argument of a command, quoted such that any sh reads exactly the original text.
///
/// The type only contains the quoted form, and [`Self::new`] is the only constructor: untrusted text cannot reach a
/// shell unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellWord(String);

impl ShellWord {
    /// Quotes `text`. The result is a single line and cannot control a terminal: hidden characters become escapes of
    /// printf(1). Text that ends with a line break is the exception, because a shell drops line breaks at the end of
    /// printf's output. `text` must not contain NUL, which no argument can contain.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
        Self(if !text.is_empty() && text.chars().all(is_plain) {
            text.to_owned()
        } else if printable(text) == text || text.ends_with('\n') {
            format!("'{}'", text.replace('\'', r"'\''"))
        } else {
            printf_word(text)
        })
    }
}

/// Returns a word that evaluates to the text through printf(1).
fn printf_word(text: &str) -> String {
    let octal: String = text.bytes().map(|byte| format!("\\0{byte:03o}")).collect();
    format!("\"$(printf %b '{octal}')\"")
}

impl fmt::Display for ShellWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command line, or an instruction if no command exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    words: Vec<ShellWord>,
    manual_because: Option<&'static str>,
}

impl ShellCommand {
    /// Creates a command.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { words: words.into_iter().map(ShellWord::new).collect(), manual_because: None }
    }

    /// Creates a comment, which a shell skips. The words are the instruction, and `why` is the reason that there is no
    /// command.
    pub fn manual<'a>(why: &'static str, words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { manual_because: Some(why), ..Self::new(words) }
    }

    /// Returns `true` for an instruction instead of a command.
    #[must_use]
    pub const fn is_manual(&self) -> bool {
        self.manual_because.is_some()
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = self.manual_because {
            write!(f, "# Not run: {why}: ")?;
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

    /// Returns the arguments that a real sh reads from a command line.
    fn read_by_sh(command: &ShellCommand) -> Vec<String> {
        let script = format!("words() {{ for word; do printf '%s\\0' \"$word\"; done; }}; words {command}");
        let output = Command::new("sh").args(["-ec", &script]).output().expect("sh");
        assert!(output.status.success(), "{command}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.split_terminator('\0').map(ToOwned::to_owned).collect()
    }

    /// Generates names that an attacker would choose, and arbitrary ones.
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
        fn shells_read_every_word_unchanged(words in prop::collection::vec(word(), 1..6)) {
            let command = ShellCommand::new(words.iter().map(String::as_str));
            prop_assert_eq!(&read_by_sh(&command), &words);
            if words.iter().all(|word| !word.ends_with('\n')) {
                let text = command.to_string();
                prop_assert_eq!(printable(&text), text.clone(), "on one line, and harmless on a terminal");
            }
        }

        #[test]
        fn shells_do_not_run_manual_instructions(
            words in prop::collection::vec(word().prop_filter("one line", |word| !word.ends_with('\n')), 1..6),
        ) {
            let command = ShellCommand::manual("a test", words.iter().map(String::as_str));
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
