//! The configuration and the node if the command line does not name them.

use super::{NODE_1, NODE_2, RECIPE, cluster, node};
use crate::support::namespace::{Namespace, Outcome, Snapshots, each};

fn hostgw(node: &Namespace, environment: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let mut command = node.hostgw_command(arguments);
    command.envs(environment.iter().copied());
    let variables: String = environment.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    Outcome::of(node, &format!("{variables}hostgw {}", arguments.join(" ")), &mut command)
}

#[test]
fn the_environment_names_the_configuration_and_the_node() {
    each(|privilege| {
        let node = node(privilege);
        node.write("other.yaml", &cluster("", &[NODE_1, NODE_2]));
        let file = ("HOSTGW_FILE", "other.yaml");
        let named = |environment: &[(&str, &str)], arguments: &[&str]| {
            let plan = hostgw(&node, environment, arguments).expect(0).json();
            (plan["file"].as_str().unwrap().to_owned(), plan["node"].as_str().unwrap().to_owned())
        };
        let is = |file: &str, node: &str| (file.to_owned(), node.to_owned());
        let plan = ["plan", "--json"];
        assert_eq!(named(&[file], &plan), is("other.yaml", "linux-1"));
        // Flags take precedence, and an empty variable counts as unset.
        assert_eq!(named(&[file], &["plan", "--json", "-f", "hostgw.yaml"]), is("hostgw.yaml", "linux-1"));
        assert_eq!(named(&[("HOSTGW_FILE", ""), ("HOSTGW_NODE", "")], &plan), is("hostgw.yaml", "linux-1"));
        node.sh("ip addr del 172.30.0.11/24 dev eth0; ip addr add 172.30.0.99/24 dev eth0");
        hostgw(&node, &[], &plan).expect(3);
        assert_eq!(named(&[("HOSTGW_NODE", "linux-2")], &plan), is("hostgw.yaml", "linux-2"));
        let flag = ["plan", "--json", "--node", "linux-1"];
        assert_eq!(named(&[("HOSTGW_NODE", "linux-2")], &flag), is("hostgw.yaml", "linux-1"));
        // Other commands that read a configuration.
        node.sh("rm hostgw.yaml");
        hostgw(&node, &[file], &["validate"]).expect(0).says("other.yaml is valid");
        hostgw(&node, &[file], &["plan", "--all-nodes"]).expect(0).says("other.yaml");
        hostgw(&node, &[file, ("HOSTGW_NODE", "linux-2")], &["render"]).expect(0).says("other.yaml");
        hostgw(&node, &[file], &["render"]).expect(64).warns("pass --node NAME, or set HOSTGW_NODE");
        let piped = node.try_sh("HOSTGW_FILE=- \"$HOSTGW\" validate <other.yaml").expect(0);
        piped.says("<stdin> is valid");
        let missing = hostgw(&node, &[("HOSTGW_FILE", "no.yaml")], &["plan"]).expect(3);
        missing.warns("no such file: no.yaml").warns("HOSTGW_FILE names it");
        // A saved plan contains its configuration and node.
        let variables = [file, ("HOSTGW_NODE", "linux-2")];
        hostgw(&node, &variables, &["plan", "--out", "p.json"]).expect(0);
        node.write("third.yaml", RECIPE);
        let other = [("HOSTGW_FILE", "third.yaml"), ("HOSTGW_NODE", "linux-1")];
        hostgw(&node, &other, &["apply", "p.json"]).expect(0).warns("Applied to node linux-2");
        let help = node.hostgw_ok(&["--help"]);
        help.says("HOSTGW_FILE").says("HOSTGW_NODE");
    });
}

/// A node has its configuration in /etc/hostgw, but a file in the working directory takes precedence.
#[test]
fn the_configuration_is_found_in_etc() {
    each(|privilege| {
        let node = node(privilege);
        node.sh("mkdir -p etc/hostgw empty; rm hostgw.yaml");
        // A mount namespace in which /etc is a folder of this test.
        let in_etc =
            |script: &str| node.try_sh(&format!("exec unshare -m sh -c 'mount --bind etc /etc && {script}'"));
        let plan = "\"$HOSTGW\" plan --json";
        let mut snapshots = Snapshots::default();
        let none = in_etc("\"$HOSTGW\" plan").expect(3);
        none.warns("no configuration found: searched for hostgw.yaml, hostgw.yml, hostgw.toml in the working directory and /etc/hostgw");
        for name in ["hostgw.yaml", "hostgw.yml"] {
            node.write(name, RECIPE);
            node.sh(&format!("mv {name} etc/hostgw/"));
            assert_eq!(in_etc(plan).expect(0).json()["file"], format!("/etc/hostgw/{name}"));
            in_etc("cd empty && \"$HOSTGW\" apply --yes").expect(0);
            in_etc("\"$HOSTGW\" validate").expect(0).says("/etc/hostgw/");
            node.sh(&format!("mv etc/hostgw/{name} etc/{name}"));
        }
        node.sh("mv etc/hostgw.y* etc/hostgw/");
        in_etc(plan).expect(3).says("/etc/hostgw contains both hostgw.yaml and hostgw.yml");
        node.write("hostgw.yaml", &cluster("", &[NODE_1, NODE_2]));
        assert_eq!(in_etc(plan).expect(0).json()["file"], "hostgw.yaml");
        snapshots.compare("refused-two-configurations", &in_etc("cd empty && \"$HOSTGW\" plan").expect(3));
        snapshots.conclude();
    });
}
