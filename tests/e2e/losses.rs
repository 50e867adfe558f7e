//! Packets that a node loses, what `hostgw doctor` says about them, and whether its remedy cures them: `ping` judges.

use super::RECIPE;
use crate::support::namespace::{SimulatedCluster, each};

/// A cause of lost packets.
struct Loss {
    /// What causes it on node linux-1.
    cause: &'static str,
    /// Who sends packets, and where to.
    lost: (&'static str, &'static str),
    /// Options of `hostgw doctor`.
    options: &'static str,
    /// What it says.
    finding: &'static str,
    /// The remedy that it prints.
    remedy: &'static str,
}

const OUT: (&str, &str) = ("pod of linux-1", "10.244.1.10");

const LOSSES: [Loss; 2] = [
    Loss {
        cause: "ip neigh replace 10.244.1.1 dev eth0 lladdr 02:00:00:00:00:99 nud permanent",
        lost: OUT,
        options: "",
        finding: "warning[HG1048]: the neighbor entry of next hop 10.244.1.1 on eth0 (node linux-2) is static",
        remedy: "ip neigh del 10.244.1.1 dev eth0",
    },
    Loss {
        cause: "ip neigh replace 10.244.1.1 dev eth0 lladdr 02:00:00:00:00:99 nud permanent",
        lost: OUT,
        options: "--probe",
        finding: "error[HG1048]: the static neighbor entry for 10.244.1.1 on eth0 (node linux-2) has hardware address \
                  02:00:00:00:00:99, but ",
        remedy: "ip neigh del 10.244.1.1 dev eth0",
    },
];

#[test]
fn remedies_cure_lost_packets() {
    let _turn = super::simulate::small();
    each(|privilege| {
        let cluster = SimulatedCluster::new(privilege, RECIPE);
        let arrives = |(from, to): (&str, &str)| {
            // What the nodes and pods have learned before must not hide the loss.
            for place in ["node linux-1", "node linux-2", "pod of linux-1", "pod of linux-2"] {
                cluster.sh(place, "ip neigh flush all");
            }
            cluster.try_sh(from, &format!("ping -n -q -c 1 -W 1 {to}")).code == 0
        };
        let node = |script: &str| cluster.try_sh("node linux-1", script);
        let doctor = |options: &str| node(&format!("\"$HOSTGW\" doctor --node linux-1 {options}"));
        for Loss { cause, lost, options, finding, remedy } in LOSSES {
            doctor("--probe").expect(0).says("no findings");
            assert!(arrives(lost), "before {cause}");
            node(cause).expect(0);
            assert!(!arrives(lost), "{cause}");
            doctor(options).expect(11).says(finding).says(&format!("`{remedy}`"));
            node(remedy).expect(0);
            assert!(arrives(lost), "{cause}: not cured by {remedy}");
            node("ip rule add priority 1 lookup local; while ip rule del priority 0; do :; done; ip rule add priority 0 lookup local
                  ip rule del priority 1 lookup local; while ip rule del priority 50; do :; done
                  for priority in 100 200; do ip rule del priority $priority || :; done");
        }
        doctor("--probe").expect(0).says("no findings");
    });
}

/// A second machine with the address of a next hop.
#[test]
fn two_machines_with_the_same_address_are_found() {
    let _turn = super::simulate::small();
    each(|privilege| {
        let cluster = SimulatedCluster::new(privilege, RECIPE);
        cluster.sh("node win-1", "ip address add 10.244.1.1/32 dev lo");
        let doctor = || cluster.try_sh("node linux-1", "\"$HOSTGW\" doctor --node linux-1 --probe");
        doctor()
            .expect(11)
            .says("error[HG1049]: 2 hardware addresses answer for 10.244.1.1 on eth0 (node linux-2): ");
        cluster.sh("node win-1", "ip address del 10.244.1.1/32 dev lo");
        doctor().expect(0).says("no findings");
    });
}
