//! A configuration and a node, live or saved in a snapshot, and the plan that makes the node match the configuration.

#[cfg(target_os = "linux")]
use super::records::{last_applied, readable};
use super::refusal::check_fit;
#[cfg(target_os = "linux")]
use crate::{
    apply::StateDir,
    kernel::{self, HostReading, LiveNode},
};
use crate::{
    config::{Loaded, StoredConfig},
    error::{Error, Kind},
    forwarding::{PathFault, Paths},
    plan::{self, ForeignPolicy, MachineSource, Observe, OriginalSysctls, Prepared},
    record::{LastApplied, Snapshot},
    render::Locator,
    state::Host,
    text::{ShellCommand, Untrusted},
};

/// The node to plan for.
#[derive(Debug)]
pub enum Place {
    /// This node, with its state directory.
    #[cfg(target_os = "linux")]
    Live(StateDir),
    /// A snapshot of a node, and the name of its file. A snapshot that was just taken is in none.
    Snapshot(Box<Snapshot>, Option<String>),
}

/// A configuration, a node, and everything known about the node before any change.
#[derive(Debug)]
pub struct Session {
    /// The configuration.
    pub loaded: Loaded,
    /// The index of the node in the configuration.
    pub index: usize,
    /// The node.
    pub place: Place,
    /// The original values of the sysctls that hostgw changed.
    pub saved: OriginalSysctls,
    /// The last apply, which tells drift from changes of the configuration.
    pub last: Option<LastApplied>,
    /// How to treat foreign objects in the place of managed ones.
    pub policy: ForeignPolicy,
    /// The plan, and what it was made from. Empty until [`Self::look`].
    pub prepared: Prepared,
    /// The interfaces and addresses by which [`Self::live`] identified the node, until the next look.
    #[cfg(target_os = "linux")]
    pub reading: Option<HostReading>,
}

impl Session {
    /// Determines which node of the configuration this machine is: the `named` one, or else the one with an address of
    /// this machine, or else the one with its hostname.
    ///
    /// # Errors
    /// Returns an error if no node of the configuration, or more than one, is this machine.
    #[cfg(target_os = "linux")]
    pub fn live(loaded: Loaded, named: Option<&str>, policy: ForeignPolicy) -> Result<Self, Error> {
        let reading = HostReading::new()?;
        let place = Place::Live(super::records::state_dir()?);
        let (host, hostname) = (reading.host(), kernel::hostname());
        let index = plan::identify(&loaded.cluster, named, &host, hostname.as_deref(), MachineSource::Live);
        let mut session = Self::new(loaded, named, index, &host, place, policy)?;
        session.reading = Some(reading);
        Ok(session)
    }

    /// Determines which node of the configuration the snapshot was taken on, which is in the file that `source` names.
    ///
    /// # Errors
    /// As [`Self::live`].
    pub fn of_snapshot(
        loaded: Loaded,
        named: Option<&str>,
        source: MachineSource<'_>,
        snapshot: Snapshot,
        policy: ForeignPolicy,
    ) -> Result<Self, Error> {
        let host = snapshot.observed.host.clone();
        let index = plan::identify(&loaded.cluster, named, &host, snapshot.hostname.as_deref(), source);
        let place = Place::Snapshot(Box::new(snapshot), source.file().map(ToOwned::to_owned));
        Self::new(loaded, named, index, &host, place, policy)
    }

    fn new(
        mut loaded: Loaded,
        node: Option<&str>,
        index: Result<usize, Error>,
        host: &Host,
        place: Place,
        policy: ForeignPolicy,
    ) -> Result<Self, Error> {
        let index = index.map_err(|error| with_last_name(error, &loaded, node, &place))?;
        plan::find_egress(&mut loaded.cluster, index, host)?;
        Ok(Self {
            index,
            place,
            saved: OriginalSysctls::default(),
            last: None,
            policy,
            prepared: Prepared::nothing(),
            #[cfg(target_os = "linux")]
            reading: None,
            loaded,
        })
    }

    /// Determines again which node of the configuration this machine is, and which interface is its egress interface: both
    /// can change during the life of a node. [`Self::look_at_once`] must follow without a wait.
    ///
    /// # Errors
    /// As [`Self::live`].
    #[cfg(target_os = "linux")]
    pub fn identify_again(&mut self, named: Option<&str>) -> Result<(), Error> {
        let reading = HostReading::new()?;
        let (host, cluster) = (reading.host(), &mut self.loaded.cluster);
        self.index =
            plan::identify(cluster, named, &host, kernel::hostname().as_deref(), MachineSource::Live)?;
        cluster.found_egress = None;
        plan::find_egress(cluster, self.index, &host)?;
        self.reading = Some(reading);
        Ok(())
    }

    /// Observes the node and plans.
    ///
    /// # Errors
    /// Returns an error if the node or its records cannot be read.
    pub fn look(&mut self) -> Result<(), Error> {
        #[cfg(target_os = "linux")]
        {
            self.reading = None;
        }
        self.look_at_once()
    }

    /// Observes the node and plans, as [`Self::look`] does. Uses the interfaces and addresses that [`Self::live`] read, if
    /// this is the first look, and must follow without a wait.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn look_at_once(&mut self) -> Result<(), Error> {
        let mut unknown = Vec::new();
        let node: &mut dyn Observe = match &mut self.place {
            #[cfg(target_os = "linux")]
            Place::Live(dir) => {
                self.saved = readable(dir.saved(), &mut unknown)?.unwrap_or_default();
                self.last = last_applied(dir)?;
                &mut self.reading
            }
            Place::Snapshot(snapshot, _) => {
                self.saved = snapshot.original_sysctls.clone();
                self.last = snapshot.last_applied.clone();
                unknown.clone_from(&snapshot.unknown);
                snapshot.as_mut()
            }
        };
        let prepared = plan::prepare(node, &self.loaded.cluster, self.index, &self.saved, self.policy)?;
        self.prepared = prepared.map_err(|plan::NotLinux| not_linux(self.node_name(), &self.place))?;
        self.prepared.plan.unknown.extend(unknown);
        if let Some(last) = self.last.as_ref().filter(|_| !self.prepared.plan.conflicts.is_empty()) {
            let routes = last.routes(last.load().as_ref(), |_| true).unwrap_or_default();
            self.prepared.plan.mark_replaced(&routes);
        }
        Ok(())
    }

    /// Observes the node again. Returns `true` if [`Self::look`] would make the same plan as last time.
    ///
    /// # Errors
    /// Returns an error if the node cannot be read.
    #[cfg(target_os = "linux")]
    pub fn is_current(&self) -> Result<bool, Error> {
        let Place::Live(dir) = &self.place else { return Ok(true) };
        // A record that cannot be read is for `look` to report.
        let is_same = dir.saved().is_ok_and(|saved| saved == self.saved)
            && last_applied(dir).is_ok_and(|last| last == self.last);
        Ok(is_same && self.prepared.is_current(&mut LiveNode)?)
    }

    /// The name of the node.
    #[must_use]
    pub fn node_name(&self) -> &Untrusted {
        &self.loaded.cluster.nodes[self.index].name
    }

    /// The paths between the pods of this node and those of all others, as the configuration plans them.
    #[must_use]
    pub fn paths(&self) -> Paths<'_> {
        let Prepared { desired, observed, .. } = &self.prepared;
        plan::paths(&self.loaded.cluster, self.index, desired, observed)
    }

    /// Returns the pod paths that will not work even after the plan is applied.
    #[must_use]
    pub fn path_faults(&self) -> Vec<PathFault> {
        let Prepared { desired, observed, plan, .. } = &self.prepared;
        plan::path_faults(&self.loaded.cluster, self.index, desired, observed, plan)
    }

    /// Returns `true` if `last` established the state of this configuration on this node.
    #[must_use]
    pub fn is_established_by(&self, last: Option<&LastApplied>) -> bool {
        let is_same = |stored: &StoredConfig| *stored == self.loaded.document;
        last.is_some_and(|last| {
            last.metadata.node.as_ref() == Some(self.node_name())
                && last.configuration.as_ref().is_some_and(is_same)
        })
    }

    /// Checks that the configuration fits the node.
    ///
    /// # Errors
    /// Returns everything that does not fit, as one error.
    pub fn check(&self) -> Result<(), Error> {
        let problems =
            plan::check(&self.loaded.cluster, self.index, &self.prepared.desired, &self.prepared.observed);
        let locator = Locator::new(&self.loaded.document);
        check_fit(self.node_name(), &problems, |path| locator.source(path))
    }
}

/// Adds what the last apply knows to the error that no node of the configuration is this machine: a node that was removed
/// from the file is found neither by its address nor by its name.
fn with_last_name(error: Error, loaded: &Loaded, asked: Option<&str>, place: &Place) -> Error {
    let last = match place {
        #[cfg(target_os = "linux")]
        Place::Live(dir) => last_applied(dir).ok().flatten(),
        Place::Snapshot(snapshot, _) => snapshot.last_applied.clone(),
    };
    let Some(name) = last.and_then(|last| last.metadata.node) else { return error };
    if asked.is_some_and(|asked| name != asked) {
        return error;
    }
    let file = loaded.document.name();
    let option = |verb: &str| ShellCommand::new(["hostgw", verb, "--node", name.as_raw()]);
    let (detail, hint) = if loaded.cluster.node(name.as_raw()).is_some() {
        (
            format!("the last apply here was for node {name}, which is still in {file}"),
            format!(
                "if this is that node, fix its address in the configuration, or run `{}`",
                option("plan")
            ),
        )
    } else {
        (
            format!("the last apply here was for node {name}, which is no longer in {file}"),
            "run `hostgw destroy` to remove everything hostgw manages on this machine; if the node was renamed, pass its new name with --node"
                .to_owned(),
        )
    };
    error.with_details([detail]).with_hint(hint)
}

fn not_linux(name: &Untrusted, place: &Place) -> Error {
    let render = |option: &[&str]| {
        ShellCommand::new([&["hostgw", "render", "--node", name.as_raw()], option].concat())
    };
    if let Place::Snapshot(_, Some(file)) = place {
        let message = format!("{file} is from a Linux machine, but node {name} runs Windows");
        return Error::new(Kind::Invalid, message).with_hint(format!(
            "pass the output of the script from `{}`, which is a snapshot of that node",
            render(&["--collect"])
        ));
    }
    Error::new(Kind::Invalid, format!("node {name} is a Windows node, but this machine runs Linux"))
        .with_hint(format!("run `{}` to write its plan as a PowerShell script", render(&[])))
}
