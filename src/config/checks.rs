//! Validates `checks`.

use std::{collections::HashMap, time::Duration};

use super::{
    parse,
    problem::{Location, Problem},
    raw::RawCheck,
    validator::Validator,
};
use crate::{
    diagnose::Rule,
    model::{Check, CheckTarget, ConfigPath},
    text::{duration, shortened},
};

impl Validator<'_> {
    pub fn checks(&mut self, raw: Vec<Option<RawCheck>>) -> Vec<Check> {
        let path = ConfigPath::root().key("checks");
        self.at_most(raw.len(), Check::MAX_COUNT, &path);
        let mut seen: HashMap<CheckTarget, usize> = HashMap::new();
        let mut checks = Vec::with_capacity(raw.len());
        for (index, raw) in raw.into_iter().enumerate() {
            let path_of = |index: usize| path.index(index);
            let Some(raw) = self.require(raw) else { continue };
            let timeout = self.timeout(&raw, &path_of(index));
            let Some(target) = self.target(&raw, &path_of(index)) else { continue };
            if let Some(first) = seen.get(&target) {
                let problem = Problem::new(
                    Rule::DuplicateCheck,
                    format!("duplicate check: {target}"),
                    Location::value(path_of(index)),
                )
                .related("first used here", Location::value(path_of(*first)));
                self.report(problem.hint("remove one of them"));
                continue;
            }
            seen.insert(target, index);
            checks.push(Check { target, timeout });
        }
        checks
    }

    fn target(&mut self, raw: &RawCheck, path: &ConfigPath) -> Option<CheckTarget> {
        let (key, parsed) = match (&raw.tcp, &raw.neighbor) {
            (Some(text), None) => ("tcp", parse::endpoint(&text.0).map(CheckTarget::Tcp)),
            (None, Some(text)) => ("neighbor", parse::neighbor(&text.0).map(CheckTarget::Neighbor)),
            (Some(_), Some(_)) => {
                let message = format!("{path} has both tcp and neighbor");
                self.report(
                    Problem::new(Rule::CheckTarget, message, Location::value(path.clone()))
                        .hint("split it into two checks"),
                );
                return None;
            }
            (None, None) => {
                if ["tcp", "neighbor"].into_iter().any(|key| self.is_reported(|| path.key(key))) {
                    return self.require(None);
                }
                let message = format!("{path} has neither tcp nor neighbor");
                let hint = "add a target, such as `tcp: 172.30.0.1:6443` or `neighbor: 172.30.0.1`";
                self.report(
                    Problem::new(Rule::CheckTarget, message, Location::value(path.clone())).hint(hint),
                );
                return None;
            }
        };
        parsed.map_err(|error| self.reject(error, Location::value(path.key(key)))).ok()
    }

    fn timeout(&mut self, raw: &RawCheck, path: &ConfigPath) -> Duration {
        let Some(text) = &raw.timeout else { return Check::DEFAULT_TIMEOUT };
        let text = &*shortened(&text.0);
        let (message, hint) = match duration(text) {
            Ok(time) if time.is_zero() => (
                format!("timeout {text} is too short"),
                "use a longer timeout, or remove this key to use the default, 5s".to_owned(),
            ),
            Ok(time) if time > Check::MAX_TIMEOUT => (
                format!("timeout {text} is too long"),
                "use at most 5m; `hostgw apply` waits for every check".to_owned(),
            ),
            Ok(time) => return time,
            Err(hint) => (format!("{text:?} is not a valid duration"), hint),
        };
        self.report(
            Problem::new(Rule::CheckTimeout, message, Location::value(path.key("timeout"))).hint(hint),
        );
        Check::DEFAULT_TIMEOUT
    }
}
