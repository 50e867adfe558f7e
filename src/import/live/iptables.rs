//! Reads what `iptables-save` prints, such that each rule can be deleted exactly.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::model::Family;

/// The output of `iptables-save` or one of its relatives.
#[derive(Debug, Clone)]
pub struct IptablesDump {
    /// The program that deletes these rules, such as `iptables` or `ip6tables-legacy`.
    pub program: String,
    /// Whether they are rules of iptables-legacy, which nftables does not know.
    pub is_legacy: bool,
    /// The family of the rules.
    pub family: Family,
    /// The output.
    pub text: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IptablesTable {
    pub program: String,
    pub is_legacy: bool,
    pub family: Family,
    pub name: String,
    pub chains: Vec<IptablesChain>,
    pub rules: Vec<IptablesRule>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IptablesChain {
    pub name: String,
    /// The policy of a built-in chain.
    pub policy: Option<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IptablesRule {
    pub chain: String,
    /// The arguments after the name of the chain.
    pub words: Vec<String>,
}

impl IptablesTable {
    /// Whether it has rules, or drops packets by a policy.
    pub fn does_anything(&self) -> bool {
        let drops = |chain: &IptablesChain| chain.policy.as_deref() == Some("DROP");
        !self.rules.is_empty() || self.chains.iter().any(drops)
    }
}

impl IptablesDump {
    /// The tables of the dump.
    pub(super) fn tables(&self) -> Vec<IptablesTable> {
        let mut tables: Vec<IptablesTable> = Vec::new();
        for mut words in statements(&self.text) {
            let Some(first) = words.first().cloned() else { continue };
            if let Some(name) = first.strip_prefix('*') {
                tables.push(IptablesTable {
                    program: self.program.clone(),
                    is_legacy: self.is_legacy,
                    family: self.family,
                    name: name.to_owned(),
                    chains: Vec::new(),
                    rules: Vec::new(),
                });
                continue;
            }
            let Some(table) = tables.last_mut() else { continue };
            if let Some(name) = first.strip_prefix(':') {
                let policy = words.get(1).filter(|policy| *policy != "-").cloned();
                table.chains.push(IptablesChain { name: name.to_owned(), policy });
            } else if first == "-A" && words.len() > 1 {
                let rest = words.split_off(2);
                table.rules.push(IptablesRule { chain: words.swap_remove(1), words: rest });
            }
        }
        tables
    }
}

/// The lines of the output, each as its words. A quoted word can contain line breaks.
fn statements(text: &str) -> Vec<Vec<String>> {
    let (mut statements, mut words) = (Vec::new(), Vec::new());
    let mut word: Option<String> = None;
    let (mut is_quoted, mut is_comment) = (false, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\n' if !is_quoted => {
                words.extend(word.take());
                statements.push(std::mem::take(&mut words));
                is_comment = false;
            }
            _ if is_comment => {}
            '#' if words.is_empty() && word.is_none() => is_comment = true,
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().extend(characters.next()),
            blank if !is_quoted && blank.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    statements.push(words);
    statements.retain(|words| !words.is_empty());
    statements
}

/// A prefix in a rule, and whether the rule matches everything else instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MatchedPrefix {
    pub prefix: IpNet,
    pub is_negated: bool,
}

/// A condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleMatch {
    pub is_negated: bool,
    /// The option, such as `-o` or `--dport`.
    pub option: String,
    pub values: Vec<String>,
}

impl IptablesRule {
    /// The values of an option, each with whether it is negated.
    fn values<'a>(&'a self, option: &'a str) -> impl Iterator<Item = (bool, &'a str)> {
        let words = &self.words;
        let is_text = |at: usize| at.checked_sub(1).is_some_and(|before| words[before] == "--comment");
        words.iter().enumerate().filter(move |(at, word)| *word == option && !is_text(*at)).filter_map(
            move |(at, _)| {
                let is_negated = at.checked_sub(1).is_some_and(|before| words[before] == "!");
                Some((is_negated, words.get(at + 1)?.as_str()))
            },
        )
    }

    /// The target, or the chain that the rule continues with.
    pub fn target(&self) -> Option<&str> {
        self.values("-j").chain(self.values("-g")).map(|(_, target)| target).next()
    }

    /// The first value of an option.
    pub fn value<'a>(&'a self, option: &'a str) -> Option<&'a str> {
        self.values(option).map(|(_, value)| value).next()
    }

    pub fn source(&self) -> Option<MatchedPrefix> {
        self.prefix("-s")
    }

    pub fn destination(&self) -> Option<MatchedPrefix> {
        self.prefix("-d")
    }

    fn prefix(&self, option: &str) -> Option<MatchedPrefix> {
        let (is_negated, text) = self.values(option).next()?;
        Some(MatchedPrefix { prefix: prefix(text)?, is_negated })
    }

    /// Its conditions other than a readable source and destination.
    pub fn matches(&self) -> Vec<RuleMatch> {
        let mut found: Vec<RuleMatch> = Vec::new();
        let mut words = self.words.iter().map(String::as_str).peekable();
        let mut is_negated = false;
        // The last match whose options have not appeared yet: some have none.
        let mut module: Option<&str> = None;
        let bare = |module: Option<&str>, found: &mut Vec<RuleMatch>| {
            let module =
                module.filter(|name| !["addrtype", "comment", "icmp", "sctp", "tcp", "udp"].contains(name));
            found.extend(module.map(|name| RuleMatch {
                is_negated: false,
                option: "-m".to_owned(),
                values: vec![name.to_owned()],
            }));
        };
        while let Some(word) = words.next() {
            match word {
                "!" => is_negated = true,
                // The options of the target are at the end.
                "-j" | "-g" => break,
                "-m" => {
                    bare(module.take(), &mut found);
                    module = words.next();
                }
                "--comment" => {
                    words.next();
                    module = None;
                }
                option => {
                    module = if option.starts_with("--") { None } else { module };
                    let mut values = Vec::new();
                    while let Some(value) = words.next_if(|word| *word != "!" && !word.starts_with('-')) {
                        values.push(value.to_owned());
                    }
                    let is_negated = std::mem::take(&mut is_negated);
                    let is_read = match option {
                        "-s" => self.source().is_some(),
                        "-d" => self.destination().is_some(),
                        _ => false,
                    };
                    if !is_read {
                        found.push(RuleMatch { is_negated, option: option.to_owned(), values });
                    }
                }
            }
        }
        bare(module, &mut found);
        found
    }

    pub fn comments(&self) -> impl Iterator<Item = &str> {
        self.values("--comment").map(|(_, comment)| comment)
    }

    /// The sets that the rule matches.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.values("--match-set").map(|(_, set)| set)
    }

    pub fn has(&self, word: &str) -> bool {
        self.values(word).next().is_some() || self.words.last().is_some_and(|last| last == word)
    }
}

/// Reads `10.244.0.0/16`, `10.244.0.0/255.255.0.0` or an address.
fn prefix(text: &str) -> Option<IpNet> {
    let net = match text.split_once('/') {
        None => text.parse::<IpAddr>().ok()?.into(),
        Some((address, mask)) if mask.contains('.') => {
            Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?.into()
        }
        Some(_) => text.parse::<IpNet>().ok()?,
    };
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<IptablesRule> {
        let dump = IptablesDump {
            program: "iptables".into(),
            is_legacy: false,
            family: Family::V4,
            text: text.to_owned(),
        };
        dump.tables().into_iter().flat_map(|table| table.rules).collect()
    }

    #[test]
    fn a_rule_is_read_as_its_arguments() {
        let text = "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:MINE - [0:0]\n\
            -A POSTROUTING ! -s 10.244.0.0/16 -d 10.0.0.0/255.0.0.0 -m comment --comment \"a \\\"b\\\" -j X\" -j MASQUERADE --random-fully\nCOMMIT\n";
        let [rule] = &rules(text)[..] else { panic!("one rule") };
        assert_eq!(rule.chain, "POSTROUTING");
        assert_eq!(rule.words[8], "a \"b\" -j X");
        assert_eq!(rule.target(), Some("MASQUERADE"));
        assert_eq!(rule.comments().collect::<Vec<_>>(), ["a \"b\" -j X"]);
        let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let source = rule.source().expect("a source");
        assert_eq!((source.prefix, source.is_negated), (prefix("10.244.0.0/16"), true));
        let destination = rule.destination().expect("a destination");
        assert_eq!((destination.prefix, destination.is_negated), (prefix("10.0.0.0/8"), false));
        assert!(rule.has("--random-fully") && !rule.has("--random"));
        let dump = IptablesDump {
            program: "iptables".into(),
            is_legacy: false,
            family: Family::V4,
            text: text.to_owned(),
        };
        let tables = dump.tables();
        let policies: Vec<_> = tables[0].chains.iter().map(|chain| chain.policy.as_deref()).collect();
        assert_eq!(policies, [Some("ACCEPT"), None]);
    }

    #[test]
    fn conditions_are_listed_without_what_is_no_condition() {
        let text = "*nat\n-A POSTROUTING -s 10.244.0.0/24 ! -d 10.244.0.0/16 ! -o wg0 -p tcp -m tcp --dport 80 -m comment \
            --comment \"-p udp\" -m addrtype ! --dst-type LOCAL -m socket -m set ! --match-set x src,dst -j SNAT --to-source 1.2.3.4\n";
        let [rule] = &rules(text)[..] else { panic!("one rule") };
        let found: Vec<String> = rule
            .matches()
            .iter()
            .map(|it| {
                format!("{}{} {}", if it.is_negated { "! " } else { "" }, it.option, it.values.join(" "))
            })
            .collect();
        let expected = [
            "! -o wg0",
            "-p tcp",
            "--dport 80",
            "! --dst-type LOCAL",
            "-m socket",
            "! --match-set x src,dst",
        ];
        assert_eq!(found, expected);
    }

    /// A comment can pretend to be a rule, an option or a table.
    #[test]
    fn a_comment_is_not_read_as_anything_else() {
        let text = "*nat\n-A POSTROUTING -m comment --comment \"x\n*filter\n-A FORWARD -j DROP\" -j MINE\n\
            -A POSTROUTING -m comment --comment -j -j ACCEPT\n";
        let rules = rules(text);
        assert_eq!(rules.len(), 2, "{rules:?}");
        assert_eq!(rules[0].comments().next(), Some("x\n*filter\n-A FORWARD -j DROP"));
        assert_eq!(
            rules.iter().map(IptablesRule::target).collect::<Vec<_>>(),
            [Some("MINE"), Some("ACCEPT")]
        );
    }

    #[test]
    fn any_text_is_read() {
        for text in ["", "\"", "*", "-A", "-A X", "*nat\n-A", "*nat\n:", "*nat\n-A X \"\\"] {
            let dump = IptablesDump {
                program: "iptables".into(),
                is_legacy: false,
                family: Family::V6,
                text: text.to_owned(),
            };
            let _ = dump.tables();
        }
    }
}
