//! Random sequences of apply, drift, crash, rollback and destroy on a simulated node.

use hostgw::{
    apply::{self, Failure, Interrupt, StateDir},
    config::{self, Document, Format},
    error::Error,
    plan::{ForeignPolicy, ForeignSysctlPolicy, OriginalSysctls, Prepared, TransactionProgress},
    record::{Record, TransactionMeta},
    state::{Expression, Field, NatRule, Route, RuleBody, State},
};
use proptest::prelude::*;

use crate::support::{
    directory::Directory,
    model::ModelNode,
    sequence::{Command, Drift, End, Fault, Place, SYSCTLS, TABLE, World, follow, sequences},
};

/// A simulated node, and the records of hostgw.
struct SimulatedNode {
    node: ModelNode,
    directory: Directory,
    /// Advances with every command, so that no two transactions start at the same time.
    clock: u64,
}

impl SimulatedNode {
    fn new() -> Self {
        let sysctls = SYSCTLS.iter().map(|key| (key.parse().unwrap(), "0".into())).collect();
        let node = ModelNode::new(State { sysctls, ..State::default() });
        Self { node, directory: Directory::new(), clock: 0 }
    }

    fn dir(&self) -> &StateDir {
        &self.directory.0
    }

    /// Does what `hostgw apply` and `hostgw destroy` do.
    fn change(&mut self, command: &Command) -> Result<End, Failure> {
        let dir = self.dir().clone();
        let _lock = self.directory.lock().map_err(Failure::Untouched)?;
        if let Some(record) = dir.open_journal().map_err(Failure::Untouched)? {
            self.recover(&dir, &record)?;
        }
        let saved = dir.saved().map_err(Failure::Untouched)?;
        let prepared = self.prepare(command, &saved).map_err(Failure::Untouched)?;
        if !prepared.plan.conflicts.is_empty() {
            return Ok(End::Refused);
        }
        if prepared.plan.is_empty() {
            apply::drop_restored_sysctls(&dir, &prepared.desired).map_err(Failure::Untouched)?;
            return Ok(End::NothingToDo);
        }
        let verb = match command {
            Command::Apply(_) => hostgw::record::Command::Apply,
            _ => hostgw::record::Command::Destroy,
        };
        let metadata = TransactionMeta::new(verb, self.clock);
        let request = apply::Request::new(&prepared, &metadata);
        apply::run(&mut self.node, &dir, &request, &Interrupt::new()).map(|_| End::Done)
    }

    fn recover(&mut self, dir: &StateDir, record: &Record) -> Result<(), Failure> {
        let Err(failure) = apply::recover(&mut self.node, dir) else { return Ok(()) };
        match &failure {
            Failure::Incomplete(incomplete) if incomplete.only_conflicts => {
                apply::abandon(&mut self.node, dir, record).map(drop)
            }
            _ => Err(failure),
        }
    }

    fn prepare(&mut self, command: &Command, saved: &OriginalSysctls) -> Result<Prepared, Error> {
        let Command::Apply(cluster) = command else {
            return hostgw::plan::prepare_removal(&mut self.node, saved, ForeignSysctlPolicy::Refuse);
        };
        let this = format!("n{}", cluster.this());
        let document = Document::new("generated.yaml", cluster.file(), Format::Yaml);
        let cluster = config::load(&document).unwrap_or_else(|invalid| panic!("{}", invalid.render(false)));
        let index = cluster.nodes.iter().position(|node| node.name == this).unwrap();
        hostgw::plan::prepare(&mut self.node, &cluster, index, saved, ForeignPolicy::Respect)
            .map(Result::unwrap)
    }

    /// Does what `hostgw rollback` does.
    fn rollback(&mut self) -> Result<End, Failure> {
        let dir = self.dir().clone();
        let _lock = self.directory.lock().map_err(Failure::Untouched)?;
        let open = dir.open_journal().map_err(Failure::Untouched)?;
        let is_open = open.is_some();
        let Some(record) = open.or(dir.last_committed().map_err(Failure::Untouched)?) else {
            return Ok(End::NothingToDo);
        };
        let progress = if is_open { TransactionProgress::Partial } else { TransactionProgress::Verified };
        let back = apply::plan_rollback(&mut self.node, &dir, &record, ForeignPolicy::Respect, progress)
            .map_err(Failure::Untouched)?;
        if !is_open {
            if !back.conflicts.is_empty() {
                return Ok(End::Refused);
            }
            dir.reopen(&record).map_err(Failure::Untouched)?;
        }
        apply::restore(&mut self.node, &dir, &record, ForeignPolicy::Respect, progress, Some(&back))
            .map(|()| End::Done)
    }
}

fn route(third: u8, gateway: &str, protocol: u8) -> Route {
    serde_json::from_value(serde_json::json!({
        "destination": format!("10.244.{third}.0/24"), "table": 254, "metric": 0, "protocol": protocol,
        "scope": "global", "type": "unicast", "nextHop": { "gateway": gateway, "device": "eth0" },
    }))
    .unwrap()
}

impl Place for SimulatedNode {
    fn observe_state(&mut self) -> World {
        let State { routes, nat, sysctls, .. } = &self.node.state;
        let routes = routes.iter().map(|route| (route.destination.to_string(), route.to_string()));
        let sysctls = sysctls.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let rules = nat.v4.iter().map(|table| {
            let rules: Vec<_> =
                table.chains.iter().flat_map(|chain| &chain.rules).map(ToString::to_string).collect();
            (TABLE.to_owned(), rules.join("\n"))
        });
        routes.chain(sysctls).chain(rules).collect()
    }

    fn run(&mut self, command: &Command, fault: Option<Fault>) -> End {
        self.clock += 1;
        // An upper bound for the exchanges of most commands here.
        let number = |at: u8| Some(self.node.exchanges + usize::from(at) % 14);
        match fault {
            None => {}
            Some(Fault::Fail(at)) => self.node.fail_at = number(at),
            Some(Fault::FailFrom(at)) => self.node.fail_from = number(at),
            Some(Fault::Kill(at)) => self.node.die_at = number(at),
        }
        let result = match command {
            Command::Rollback => self.rollback(),
            _ => self.change(command),
        };
        let is_dead = self.node.is_dead();
        self.node = ModelNode { exchanges: self.node.exchanges, ..ModelNode::new(self.node.state.clone()) };
        match result {
            _ if is_dead => End::Killed,
            Ok(end) => end,
            Err(Failure::Untouched(_)) => End::Untouched,
            Err(Failure::RolledBack { .. }) => End::RolledBack,
            Err(Failure::Incomplete(_)) => End::Incomplete,
        }
    }

    fn drift(&mut self, drift: Drift) {
        let State { routes, nat, .. } = &mut self.node.state;
        let mut replace = |third: u8, new: Option<Route>| {
            let destination = route(third, "172.30.0.1", 4).destination;
            let others = routes.iter().filter(|route| route.destination != destination);
            let mut all: Vec<Route> = others.cloned().chain(new).collect();
            all.sort_by_key(Route::key);
            *routes = all.into();
        };
        match drift {
            Drift::TakeRoute(third) => replace(third, Some(route(third, "172.30.0.209", 4))),
            Drift::StrayRoute(third) => replace(third, Some(route(third, "172.30.0.208", 87))),
            Drift::DropRoute(third) => replace(third, None),
            Drift::Sysctl(key, value) => self.node.write(&SYSCTLS[key].parse().unwrap(), &value.to_string()),
            Drift::DropTable => nat.v4 = None,
            Drift::AddRule => {
                let prefix = "10.9.0.0/16".parse().unwrap();
                let to = Expression::Address { field: Field::Daddr, negated: false, prefix };
                let rule = NatRule { body: RuleBody::Known(vec![to, Expression::Return]), comment: None };
                assert_eq!(rule.to_string(), Drift::RULE);
                let chains = nat.v4.iter_mut().flat_map(|table| &mut table.chains);
                chains.take(1).for_each(|chain| chain.rules.push(rule.clone()));
            }
        }
    }

    fn journal(&self) -> Option<String> {
        std::fs::read_to_string(self.dir().path().join("journal.json")).ok()
    }

    fn committed(&self) -> usize {
        self.dir().history().unwrap().len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Every command completes, changes nothing, or reports what is left, which a later command completes.
    #[test]
    fn every_step_of_a_sequence_keeps_the_guarantees(steps in sequences(14)) {
        follow(&mut SimulatedNode::new(), &steps);
    }
}
