//! A real PowerShell, if there is one: runs the same scripts on the same machines, with substitutes for the modules
//! NetTCPIP and ScheduledTasks and for the event log.
//!
//! The substitutes keep the machine in JSON files and have the same faults as the model. One process serves many runs.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, Mutex},
};

use serde_json::{Value, json};

use super::{Fault, Find, Machine, Outcome, RouteKey, machine::RouteValue};
use crate::support::directory::Directory;

/// The folder that the model calls `C:\Program Files\hostgw\`.
const MODEL_FOLDER: &str = "C:\\Program Files\\hostgw\\";

/// The path of a script that is not installed.
const MODEL_SCRIPT: &str = "C:\\script.ps1";

/// The PowerShell on the PATH. Prints a message if there is none.
pub fn pwsh() -> Option<&'static Path> {
    static FOUND: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let path = env::var_os("PATH")?;
        let found = env::split_paths(&path).map(|folder| folder.join("pwsh")).find(|file| file.is_file());
        if found.is_none() {
            crate::support::say(
                "skipped: no pwsh on the PATH, so the Windows scripts do not run in a real PowerShell",
            );
        }
        found
    });
    FOUND.as_deref()
}

/// The folder with the support files of this module.
pub fn support() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/powershell")
}

/// A PowerShell that finds the substitute, and leaves nothing in the home folder.
pub fn command(folder: &Path) -> Command {
    // A suite in the background of a shell ignores SIGINT, and so would all its child processes.
    let mut command = Command::new("env");
    command.args(["--default-signal", "--"]).arg(pwsh().expect("a pwsh"));
    let modules = pwsh().and_then(|path| path.canonicalize().ok()).expect("a place");
    let modules = modules.parent().expect("a folder").join("Modules");
    command
        .env("PSModulePath", env::join_paths([support(), modules]).expect("a path"))
        .env("PSModuleAnalysisCachePath", folder.join("modules.cache"))
        .env("POWERSHELL_TELEMETRY_OPTOUT", "1")
        .env("POWERSHELL_UPDATECHECK", "Off")
        .env("NO_COLOR", "1")
        // Compiles every method once and quickly: the runtime's optimizations of often called methods take longer than
        // they save.
        .env("DOTNET_TieredPGO", "0")
        .env("DOTNET_TC_CallCountingDelayMs", "2000000")
        .env("HGW_MACHINE", folder.join("machine.json"))
        .env("HGW_CALLS", folder.join("calls"))
        .env("HGW_SCHEDULER", folder.join("scheduler.json"))
        .env("ProgramFiles", folder.join("Program Files"))
        .env_remove("ProgramW6432")
        .env("XDG_CONFIG_HOME", folder);
    // Replaces functions that only work on Windows, for a process that reads its profile.
    let profile = folder.join("powershell");
    fs::create_dir_all(&profile).expect("a folder");
    let answer = "Import-Module NetTCPIP\nImport-Module ScheduledTasks\nfunction Test-Answered { return $true }\nSet-Alias -Name Test-Administrator -Value Test-Answered\n";
    fs::write(profile.join("profile.ps1"), answer).expect("a profile");
    command
}

/// The settings of a run that are not part of the machine.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    /// The culture of the script, such as `tr-TR`.
    pub culture: Option<&'static str>,
    /// Preference variables of the caller.
    pub preferences: Vec<(&'static str, Value)>,
}

struct Driver {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// For the module cache and the scripts.
    folder: Directory,
    /// The scripts that it ran. PowerShell parses and compiles a script once if its path and its text stay the same.
    scripts: HashMap<String, PathBuf>,
}

impl Driver {
    fn start() -> Self {
        let folder = Directory::new();
        let mut child = command(folder.path())
            .args(["-NoProfile", "-File"])
            .arg(support().join("driver.ps1"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a pwsh");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, stdin, stdout: BufReader::new(stdout), folder, scripts: HashMap::new() }
    }

    /// The file with a script.
    fn script(&mut self, text: &str) -> PathBuf {
        let number = self.scripts.len();
        let new = || {
            let path = self.folder.path().join(format!("script-{number}.ps1"));
            fs::write(&path, text).expect("a script");
            path
        };
        self.scripts.entry(text.to_owned()).or_insert_with(new).clone()
    }

    /// The answer to a request; `None` if the process ended without one.
    fn ask(&mut self, request: &Value) -> Option<Value> {
        writeln!(self.stdin, "{request}").ok()?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stdout.read_line(&mut line).ok()? == 0 {
                let _ = self.child.wait();
                return None;
            }
            match line.strip_prefix("@@") {
                Some(answer) => return Some(serde_json::from_str(answer).expect("an answer")),
                None => drop(write!(io::stderr(), "pwsh: {line}")),
            }
        }
    }
}

/// Idle drivers.
static IDLE: Mutex<Vec<Driver>> = Mutex::new(Vec::new());

/// Runs a script on the machine in a folder, in an idle driver or a new one: a `text`, or else the installed copy. Returns
/// `None` if it was killed.
fn ask(
    place: &mut Place<'_>,
    machine: &Machine,
    text: Option<&str>,
    switches: &[&str],
    setting: &Setting,
) -> Option<Value> {
    let idle = IDLE.lock().expect("no panic").pop();
    let mut driver = idle.unwrap_or_else(Driver::start);
    place.script = text.map_or_else(|| place.files().join("hostgw.ps1"), |text| driver.script(text));
    let request = place.request(machine, switches, setting);
    let answer = driver.ask(&request)?;
    IDLE.lock().expect("no panic").push(driver);
    Some(answer)
}

/// Runs a script as [`super::run`] does, in a real PowerShell.
pub fn run(machine: &mut Machine, text: &str, switches: &[&str], setting: &Setting) -> Outcome {
    run_at(machine, Some(text), switches, setting)
}

/// Runs the installed copy of a script.
pub fn run_installed(machine: &mut Machine, switches: &[&str]) -> Outcome {
    run_at(machine, None, switches, &Setting::default())
}

fn run_at(machine: &mut Machine, text: Option<&str>, switches: &[&str], setting: &Setting) -> Outcome {
    let folder = Directory::new();
    let mut place = Place::new(folder.path());
    place.write(machine);
    let answer = ask(&mut place, machine, text, switches, setting);
    place.read(machine);
    let Some(answer) = answer else {
        return Outcome { code: None, stdout: String::new(), stderr: String::new() };
    };
    let lines = answer["stdout"].as_array().expect("lines");
    let stdout: String = lines.iter().map(|line| format!("{}\n", line.as_str().expect("a line"))).collect();
    Outcome {
        code: answer["code"].as_i64(),
        stdout: place.with_model_paths(&stdout),
        stderr: place.with_model_paths(answer["stderr"].as_str().expect("a text")),
    }
}

/// Runs a script as an operator does, in a new process: `-File SCRIPT ARGUMENTS`.
pub fn run_file(machine: &mut Machine, text: &str, arguments: &[&str]) -> Outcome {
    run_process(machine, text, |command, script| {
        command.arg("-File").arg(script).args(arguments);
    })
}

/// Runs a script in a new process with the arguments from `call`. Its faults are numbered from its first call.
pub fn run_process(machine: &mut Machine, text: &str, call: impl FnOnce(&mut Command, &Path)) -> Outcome {
    run_process_in(Directory::new().path(), machine, text, call)
}

/// Same as [`run_process`], in a folder of the caller.
pub fn run_process_in(
    folder: &Path,
    machine: &mut Machine,
    text: &str,
    call: impl FnOnce(&mut Command, &Path),
) -> Outcome {
    let place = Place::new(folder);
    place.write(machine);
    fs::write(&place.script, text).expect("a script");
    let mut command = command(folder);
    call(command.env("HGW_FAULTS", faults(machine)), &place.script);
    let output = command.stdin(Stdio::null()).output().expect("a pwsh");
    place.read(machine);
    Outcome {
        code: output.status.code().map(i64::from),
        stdout: place.with_model_paths(&String::from_utf8_lossy(&output.stdout)),
        stderr: place.with_model_paths(&String::from_utf8_lossy(&output.stderr)),
    }
}

/// The faults by the number of the call, in the format of the substitute.
fn faults(machine: &Machine) -> String {
    let word = |fault: &Fault| match fault {
        Fault::Refuse => "refuse",
        Fault::Late => "late",
        Fault::Ignore => "ignore",
        Fault::Kill => "kill",
        Fault::KillAfter => "killafter",
        Fault::Stop => "stop",
        other => panic!("the stand-in has no {other:?}"),
    };
    let words = machine.call_faults.iter().map(|(number, fault)| format!("{number}:{}", word(fault)));
    words.collect::<Vec<_>>().join(",")
}

/// The folder of one run.
struct Place<'a> {
    folder: &'a Path,
    /// The script that runs there.
    script: PathBuf,
}

impl<'a> Place<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, script: folder.join("script.ps1") }
    }

    fn files(&self) -> PathBuf {
        self.folder.join("Program Files/hostgw")
    }

    fn write(&self, machine: &Machine) {
        fs::write(self.folder.join("machine.json"), to_json(machine).to_string()).expect("a machine");
        fs::write(self.folder.join("calls"), "").expect("a file");
        if !machine.files.is_empty() || !machine.locked.is_empty() {
            fs::create_dir_all(self.files()).expect("a folder");
        }
        write_records(&self.files(), machine);
        let scheduler = map_texts(&machine.scheduler, &|text| self.with_real_paths(text));
        if !scheduler.is_null() {
            fs::write(self.scheduler(), scheduler.to_string()).expect("a file");
        }
        if let Some(later) = &machine.later {
            let records = self.later().join("hostgw");
            fs::create_dir_all(&records).expect("a folder");
            write_records(&records, later);
            fs::write(self.later().join("machine.json"), to_json(later).to_string()).expect("a machine");
        }
    }

    fn scheduler(&self) -> PathBuf {
        self.folder.join("scheduler.json")
    }

    /// What replaces the machine and its records while a run of the task waits.
    fn later(&self) -> PathBuf {
        self.folder.join("later")
    }

    fn request(&self, machine: &Machine, switches: &[&str], setting: &Setting) -> Value {
        assert!(
            machine.faults.is_empty() && machine.denied_from.is_none(),
            "faults by steps are of the model"
        );
        let mut names = Vec::new();
        let mut rest = Vec::new();
        for switch in switches {
            for word in switch.split(' ') {
                match word.strip_prefix('-').filter(|name| super::PARAMETERS.contains(name)) {
                    Some(name) => names.push(name),
                    None => rest.push(word),
                }
            }
        }
        let locked: Vec<PathBuf> = machine
            .locked
            .iter()
            .map(|path| self.files().join(path.strip_prefix(MODEL_FOLDER).expect("a record")))
            .collect();
        let preferences: serde_json::Map<String, Value> =
            setting.preferences.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        json!({
            "script": self.script, "folder": self.folder, "switches": names, "rest": rest,
            "calls": machine.calls.len(), "faults": faults(machine),
            "refusedFrom": machine.calls_denied_from.map(|from| from.to_string()).unwrap_or_default(),
            "blind": if machine.is_silent { "silent" } else if machine.blind { "1" } else { "" },
            "administrator": machine.is_administrator,
            "locked": locked, "culture": setting.culture, "preferences": preferences,
        })
    }

    /// Reads the result of the run.
    fn read(&self, machine: &mut Machine) {
        if !self.later().exists()
            && let Some(later) = machine.later.take()
        {
            machine.interfaces = later.interfaces;
        }
        if let Ok(text) = fs::read_to_string(self.scheduler()) {
            let scheduler = serde_json::from_str(&text).expect("JSON");
            machine.scheduler = map_texts(&scheduler, &|text| self.with_model_paths(text));
        }
        let text = fs::read_to_string(self.folder.join("machine.json")).expect("a machine");
        from_json(machine, &serde_json::from_str(&text).expect("JSON"));
        let calls = fs::read_to_string(self.folder.join("calls")).expect("calls");
        machine.calls.extend(calls.lines().map(ToOwned::to_owned));
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.files()).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            // The model does not keep the file of a released lock.
            if name != "lock" {
                let text = fs::read(&path).expect("a record");
                files.insert(format!("{MODEL_FOLDER}{name}"), String::from_utf8(text).expect("UTF-8"));
            }
        }
        machine.files = files;
        machine.locked.clear();
    }

    /// Replaces paths by those of the model.
    fn with_model_paths(&self, text: &str) -> String {
        let folder = format!("{}/", self.files().display());
        let text = text.replace(&folder, MODEL_FOLDER);
        text.replace(&self.script.display().to_string(), MODEL_SCRIPT).replace("\r\n", "\n")
    }

    /// Replaces paths of the model by those of this run.
    fn with_real_paths(&self, text: &str) -> String {
        text.replace(MODEL_FOLDER, &format!("{}/", self.files().display()))
    }
}

/// Writes the files of a machine to the folder of the records.
fn write_records(folder: &Path, machine: &Machine) {
    for (path, text) in &machine.files {
        fs::write(folder.join(path.strip_prefix(MODEL_FOLDER).expect("a record")), text).expect("a record");
    }
}

/// Replaces all texts in a JSON value.
fn map_texts(json: &Value, map: &dyn Fn(&str) -> String) -> Value {
    match json {
        Value::String(text) => map(text).into(),
        Value::Array(items) => items.iter().map(|item| map_texts(item, map)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), map_texts(value, map)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

fn to_json(machine: &Machine) -> Value {
    let mut interfaces = Vec::new();
    let mut addresses = Vec::new();
    for interface in &machine.interfaces {
        for (family, forwards) in &interface.forwarding {
            let forwarding = if *forwards { "Enabled" } else { "Disabled" };
            interfaces.push(json!({
                "index": interface.index, "alias": interface.alias, "family": family, "forwarding": forwarding,
                "metric": interface.metric, "connection": if interface.is_connected { "Connected" } else { "Disconnected" }
            }));
        }
        for address in &interface.addresses {
            addresses.push(json!({
                "index": interface.index, "address": address.addr().to_string(), "length": address.prefix_len()
            }));
        }
    }
    let mut routes = Vec::new();
    for (name, store) in [("ActiveStore", &machine.active), ("PersistentStore", &machine.persistent)] {
        for (key, value) in store {
            routes.push(json!({
                "store": name, "index": key.index, "prefix": key.destination.to_string(),
                "nexthop": key.next_hop.to_string(), "metric": value.metric, "protocol": value.protocol
            }));
        }
    }
    let find = match &machine.find {
        Find::ByTable => Value::Null,
        Find::Absent => json!({ "kind": "absent" }),
        Find::Fails => json!({ "kind": "fails" }),
        Find::Diverts { from_call, times, destination, route } => {
            let route = route.map(|(index, next_hop)| json!({ "index": index, "nexthop": next_hop }));
            let times = i32::try_from(*times).unwrap_or(i32::MAX);
            json!({ "kind": "diverts", "from": from_call, "times": times, "prefix": destination, "route": route })
        }
    };
    json!({ "interfaces": interfaces, "addresses": addresses, "routes": routes, "find": find })
}

/// Reads routes and forwarding from the output of the substitute.
fn from_json(machine: &mut Machine, json: &Value) {
    let text = |value: &Value, name: &str| value[name].as_str().expect("a text").to_owned();
    machine.active.clear();
    machine.persistent.clear();
    for route in json["routes"].as_array().expect("routes") {
        let key = RouteKey {
            index: route["index"].as_i64().expect("a number"),
            destination: text(route, "prefix").parse().expect("a prefix"),
            next_hop: text(route, "nexthop").parse().expect("an address"),
        };
        let protocol = if route["protocol"] == "Local" { "Local" } else { "NetMgmt" };
        let value = RouteValue { metric: route["metric"].as_i64().expect("a number"), protocol };
        let store =
            if route["store"] == "ActiveStore" { &mut machine.active } else { &mut machine.persistent };
        assert!(store.insert(key, value).is_none(), "a route twice");
    }
    for entry in json["interfaces"].as_array().expect("interfaces") {
        let (index, family) = (entry["index"].as_i64(), text(entry, "family"));
        let interface =
            machine.interfaces.iter_mut().find(|one| Some(one.index) == index).expect("an interface");
        let forwarding = interface.forwarding.get_mut(family.as_str()).expect("a family");
        *forwarding = entry["forwarding"] == "Enabled";
    }
}
