//! The cmdlets of the language, and those that read and change the network.

use std::{net::IpAddr, rc::Rc};

use ipnet::IpNet;
use serde_json::json;

use super::{
    command::Arguments,
    expression::thrown,
    interpreter::{Flow, Interpreter, Step},
    machine::{Course, Find, RouteKey, RouteValue},
    value::{Failure, Name, Value},
};

impl Interpreter<'_> {
    pub fn cmdlet(
        &mut self,
        name: &str,
        mut arguments: Arguments,
        input: Option<Vec<Value>>,
    ) -> Step<Vec<Value>> {
        let none = |()| Vec::new();
        let output = match name {
            "write-host" => {
                let text = arguments.take("Object").and_then(|text| text.text()).expect("a text");
                self.stdout.push_str(&format!("{text}\n"));
                Vec::new()
            }
            "write-warning" => {
                let text = arguments.take("Message").and_then(|text| text.text()).expect("a text");
                self.stdout.push_str(&format!("WARNING: {text}\n"));
                Vec::new()
            }
            "write-output" => vec![arguments.take("InputObject").expect("a value")],
            "set-strictmode" => {
                assert_eq!(arguments.take("Version").map(|version| version.text()), Some(Some("2.0".into())));
                Vec::new()
            }
            "join-path" => {
                let folder = arguments.take("Path").and_then(|path| path.text()).expect("a path");
                let child = arguments.take("ChildPath").and_then(|path| path.text()).expect("a path");
                vec![Value::str(format!("{folder}\\{child}"))]
            }
            "new-object" => {
                let kind = arguments.take("TypeName").and_then(|kind| kind.text()).expect("a type");
                let inside = std::mem::take(&mut arguments.positional);
                vec![self.new_object(&kind, inside)]
            }
            "where-object" => {
                let block = arguments.take("FilterScript").expect("a block");
                let mut kept = Vec::new();
                for item in input.expect("a pipeline") {
                    if Value::collected(self.block(&block, item.clone())?).is_true() {
                        kept.push(item);
                    }
                }
                kept
            }
            "foreach-object" => {
                let block = arguments.take("Process").expect("a block");
                let mut output = Vec::new();
                for item in input.expect("a pipeline") {
                    output.extend(self.block(&block, item)?);
                }
                output
            }
            "sort-object" => {
                let mut items = input.expect("a pipeline");
                items.sort_by_key(|item| item.text().expect("texts").to_lowercase());
                if arguments.switch("Unique") {
                    items.dedup_by_key(|item| item.text().expect("texts").to_lowercase());
                }
                items
            }
            "convertto-json" => {
                let value = arguments.take("InputObject").expect("a value");
                let depth = arguments.take("Depth");
                arguments.switch("Compress");
                let Some(Value::Int(depth)) = depth else {
                    panic!("the depth must be set: the default truncates")
                };
                vec![Value::str(to_json(&value, depth).to_string())]
            }
            "convertfrom-json" => {
                let text = arguments.take("InputObject").and_then(|text| text.text()).expect("a text");
                match serde_json::from_str(&text) {
                    Ok(json) => vec![from_json(&json)],
                    Err(error) => return thrown(format!("Invalid JSON primitive: {error}")),
                }
            }
            "get-netroute" => self.get_routes(&mut arguments)?,
            "get-netipaddress" => self.get_addresses(&mut arguments)?,
            "get-netipinterface" => self.get_interfaces(&mut arguments)?,
            "start-sleep" => {
                assert!(arguments.take("Seconds").is_some());
                Vec::new()
            }
            "find-netroute" => self.find_route(&mut arguments)?,
            "new-netroute" => self.new_route(&mut arguments)?,
            "remove-netroute" => self.remove_route(&mut arguments).map(none)?,
            "set-netroute" => self.set_route(&mut arguments).map(none)?,
            "set-netipinterface" => self.set_interface(&mut arguments).map(none)?,
            _ => panic!("not known: the command {name}"),
        };
        arguments.finish(name);
        Ok(output)
    }

    /// Functions of a module do not see the script's preference: without -ErrorAction Stop, `catch` does not receive
    /// their errors.
    fn assert_stops_on_error(arguments: &mut Arguments) {
        let action = arguments.named.remove("erroraction").flatten().and_then(|action| action.text());
        assert_eq!(action.as_deref(), Some("Stop"), "errors would be ignored");
    }

    /// Functions of a module see the caller's global preferences: without both parameters, a call may ask, or do
    /// nothing.
    fn assert_does_not_ask(arguments: &mut Arguments, what: &str) {
        for name in ["confirm", "whatif"] {
            let value = arguments.named.remove(name).flatten();
            assert!(matches!(value, Some(Value::Bool(false))), "{what} without -{name}:$false");
        }
    }

    fn look(&self) -> Step<()> {
        if self.machine.is_silent {
            return Err(Flow::Throw(not_found("MSFT objects")));
        }
        if self.machine.blind { thrown("The WMI repository is corrupted.") } else { Ok(()) }
    }

    fn get_routes(&mut self, arguments: &mut Arguments) -> Step<Vec<Value>> {
        Self::assert_stops_on_error(arguments);
        self.look()?;
        let store = match arguments.take("PolicyStore").and_then(|store| store.text()).as_deref() {
            Some("ActiveStore") => &self.machine.active,
            Some("PersistentStore") => &self.machine.persistent,
            other => panic!("not known: the store {other:?}"),
        };
        let routes: Vec<Value> =
            store.iter().map(|(key, value)| self.machine.route_object(key, value)).collect();
        found(routes, "MSFT_NetRoute")
    }

    fn get_addresses(&mut self, arguments: &mut Arguments) -> Step<Vec<Value>> {
        Self::assert_stops_on_error(arguments);
        self.look()?;
        let addresses = self.machine.interfaces.iter().flat_map(|interface| {
            interface.addresses.iter().map(|address| {
                let zone = if address.addr().to_string().starts_with("fe80") { "%7" } else { "" };
                Value::object([
                    ("InterfaceIndex", Value::Int(interface.index)),
                    ("IPAddress", Value::str(format!("{}{zone}", address.addr()))),
                    ("PrefixLength", Value::Int(address.prefix_len().into())),
                ])
            })
        });
        found(addresses.collect(), "MSFT_NetIPAddress")
    }

    fn get_interfaces(&mut self, arguments: &mut Arguments) -> Step<Vec<Value>> {
        Self::assert_stops_on_error(arguments);
        self.look()?;
        let interfaces = self.machine.interfaces.iter().flat_map(|interface| {
            interface.forwarding.iter().map(|(family, forwards)| {
                Value::object([
                    ("InterfaceIndex", Value::Int(interface.index)),
                    ("InterfaceAlias", Value::str(&*interface.alias)),
                    ("AddressFamily", Value::str(*family)),
                    ("Forwarding", Value::str(if *forwards { "Enabled" } else { "Disabled" })),
                    ("InterfaceMetric", Value::Int(interface.metric)),
                    (
                        "ConnectionState",
                        Value::str(if interface.is_connected { "Connected" } else { "Disconnected" }),
                    ),
                ])
            })
        });
        found(interfaces.collect(), "MSFT_NetIPInterface")
    }

    /// Returns the local address and the route, as the cmdlet does.
    fn find_route(&mut self, arguments: &mut Arguments) -> Step<Vec<Value>> {
        Self::assert_stops_on_error(arguments);
        let address =
            arguments.take("RemoteIPAddress").and_then(|address| address.text()).expect("an address");
        let address: IpAddr = address.parse().expect("an address");
        let local = Value::object([("IPAddress", Value::str("172.30.0.12"))]);
        let unreachable = Failure {
            id: "Windows System Error 1231,Find-NetRoute",
            ..Failure::new("The network location cannot be reached.")
        };
        self.machine.found.push(address);
        let machine = &self.machine;
        let found = match &machine.find {
            Find::Absent => return thrown("The term 'Find-NetRoute' is not recognized."),
            Find::Fails => return thrown("A general error occurred."),
            Find::Diverts { from_call, times, destination, route }
                if machine.calls.len() >= *from_call
                    && destination.contains(&address)
                    && self.diverted < *times =>
            {
                self.diverted += 1;
                route.map(|(index, next_hop)| {
                    let key = RouteKey { index, destination: *destination, next_hop };
                    machine.route_object(&key, &RouteValue { metric: 1, protocol: "NetMgmt" })
                })
            }
            _ => machine.route_to(address).map(|(key, value)| machine.route_object(key, value)),
        };
        found.map_or(Err(Flow::Throw(unreachable)), |route| Ok(vec![local, route]))
    }

    /// The selected route and the other parameters. Without all selectors, a call would affect every route.
    fn selected_route(
        arguments: &mut Arguments,
        what: &str,
    ) -> (RouteKey, Option<i64>, Option<Rc<str>>, String) {
        Self::assert_stops_on_error(arguments);
        Self::assert_does_not_ask(arguments, what);
        let mut text = |name: &str| arguments.named.remove(name).flatten().and_then(|value| value.text());
        let destination: IpNet = text("destinationprefix").expect("a destination").parse().expect("a prefix");
        let next_hop: IpAddr = text("nexthop").expect("a next hop").parse().expect("an address");
        let index: i64 = text("interfaceindex").expect("an interface").parse().expect("a number");
        let metric = text("routemetric").map(|metric| metric.parse::<u16>().expect("a UInt16").into());
        let store = text("policystore");
        let words = format!(
            "{what} {index} {destination} {next_hop}{}{}",
            metric.map_or_else(String::new, |metric: i64| format!(" {metric}")),
            store.as_deref().map_or_else(String::new, |store| format!(" {store}"))
        );
        (RouteKey { index, destination, next_hop }, metric, store, words)
    }

    /// Makes `change` as the machine's faults permit.
    pub fn make_change(
        &mut self,
        words: String,
        is_call: bool,
        change: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Step<()> {
        match self.machine.step(words, is_call) {
            Course::Well => change(self).map_err(Flow::Throw),
            Course::Refused(failure) => Err(Flow::Throw(failure)),
            Course::Late(failure) => {
                change(self).map_err(Flow::Throw)?;
                Err(Flow::Throw(failure))
            }
            Course::Ignored => Ok(()),
            Course::Killed { after } => {
                if after {
                    change(self).map_err(Flow::Throw)?;
                }
                Err(Flow::Killed)
            }
            Course::Stopped => Err(Flow::Stopped),
            Course::PowerLost => {
                self.machine.lose_power();
                Err(Flow::Killed)
            }
        }
    }

    fn new_route(&mut self, arguments: &mut Arguments) -> Step<Vec<Value>> {
        let (key, metric, store, words) = Self::selected_route(arguments, "New-NetRoute");
        let value = RouteValue { metric: metric.unwrap_or(256), protocol: "NetMgmt" };
        self.make_change(words, true, |this| {
            let machine = &mut this.machine;
            if machine.alias(key.index).is_none() {
                return Err(not_found("the interface"));
            }
            let exists = || Failure {
                category: "ResourceExists",
                ..Failure::new("Instance MSFT_NetRoute already exists")
            };
            match store.as_deref() {
                None if machine.active.contains_key(&key) || machine.persistent.contains_key(&key) => {
                    Err(exists())
                }
                Some("ActiveStore") if machine.active.contains_key(&key) => Err(exists()),
                None => {
                    machine.active.insert(key.clone(), value.clone());
                    machine.persistent.insert(key, value);
                    Ok(())
                }
                Some("ActiveStore") => {
                    machine.active.insert(key, value);
                    Ok(())
                }
                // As documented for the persistent store alone.
                Some(_) => Err(Failure::new("Invalid parameter PolicyStore")),
            }
        })?;
        Ok(vec![Value::object([("Store", Value::str("ActiveStore"))])])
    }

    fn remove_route(&mut self, arguments: &mut Arguments) -> Step<()> {
        let (key, _, store, words) = Self::selected_route(arguments, "Remove-NetRoute");
        self.make_change(words, true, |this| {
            let machine = &mut this.machine;
            let removed = match store.as_deref() {
                Some("ActiveStore") => machine.active.remove(&key),
                Some("PersistentStore") => machine.persistent.remove(&key),
                other => panic!("not known: the store {other:?}"),
            };
            removed.map(drop).ok_or_else(|| not_found("MSFT_NetRoute objects"))
        })
    }

    fn set_route(&mut self, arguments: &mut Arguments) -> Step<()> {
        let (key, metric, store, words) = Self::selected_route(arguments, "Set-NetRoute");
        self.make_change(words, true, |this| {
            let machine = &mut this.machine;
            let route = match store.as_deref() {
                Some("ActiveStore") => machine.active.get_mut(&key),
                Some("PersistentStore") => machine.persistent.get_mut(&key),
                other => panic!("not known: the store {other:?}"),
            };
            let route = route.ok_or_else(|| not_found("MSFT_NetRoute objects"))?;
            route.metric = metric.expect("a metric");
            Ok(())
        })
    }

    fn set_interface(&mut self, arguments: &mut Arguments) -> Step<()> {
        Self::assert_stops_on_error(arguments);
        Self::assert_does_not_ask(arguments, "Set-NetIPInterface");
        let mut text = |name: &str| arguments.named.remove(name).flatten().and_then(|value| value.text());
        let index: i64 = text("interfaceindex").expect("an interface").parse().expect("a number");
        let family = text("addressfamily").expect("a family");
        let value = text("forwarding").expect("a value");
        let words = format!("Set-NetIPInterface {index} {family} {value}");
        self.make_change(words, true, |this| {
            let interface = this.machine.interfaces.iter_mut().find(|one| one.index == index);
            let forwarding = interface.and_then(|interface| interface.forwarding.get_mut(&*family));
            match (forwarding, &*value) {
                (Some(forwarding), "Enabled" | "Disabled") => {
                    *forwarding = &*value == "Enabled";
                    Ok(())
                }
                (None, _) => Err(not_found("MSFT_NetIPInterface objects")),
                (Some(_), _) => {
                    Err(Failure::new("Cannot process argument transformation on parameter 'Forwarding'"))
                }
            }
        })
    }
}

fn not_found(what: &str) -> Failure {
    Failure { category: "ObjectNotFound", ..Failure::new(format!("No {what} found")) }
}

/// These cmdlets report an error if they find nothing.
fn found(objects: Vec<Value>, class: &str) -> Step<Vec<Value>> {
    if objects.is_empty() { Err(Flow::Throw(not_found(&format!("{class} objects")))) } else { Ok(objects) }
}

/// Converts to JSON. Panics if `depth` would truncate the value.
fn to_json(value: &Value, depth: i64) -> serde_json::Value {
    assert!(depth >= 0, "deeper than -Depth: {value:?}");
    match value {
        Value::Null => json!(null),
        Value::Bool(value) => json!(value),
        Value::Int(number) => json!(number),
        Value::Str(text) => json!(**text),
        Value::Array(_) | Value::List(_) => {
            value.enumerated().iter().map(|item| to_json(item, depth - 1)).collect()
        }
        Value::Table(table) => {
            let table = table.borrow();
            let entries = table
                .entries()
                .map(|(name, value)| (name.text().expect("a name").to_string(), to_json(value, depth - 1)));
            serde_json::Value::Object(entries.collect())
        }
        Value::Object(object) => {
            let object = object.borrow();
            let entries = object.iter().map(|(name, value)| (name.0.to_string(), to_json(value, depth - 1)));
            serde_json::Value::Object(entries.collect())
        }
        other => panic!("no JSON for {other:?}"),
    }
}

pub fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => Value::Int(number.as_i64().expect("a whole number")),
        serde_json::Value::String(text) => Value::str(text.as_str()),
        serde_json::Value::Array(items) => Value::array(items.iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => {
            let entries = entries.iter().map(|(name, value)| (Name(name.clone().into()), from_json(value)));
            Value::Object(Rc::new(std::cell::RefCell::new(entries.collect())))
        }
    }
}
