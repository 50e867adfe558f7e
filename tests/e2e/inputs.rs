//! Files that are given to hostgw: how they may be named, what may be one, and how much is read of it.

use super::RECIPE;
use crate::support::namespace::{Namespace, each};

#[test]
fn validate_takes_files_by_name_and_by_flag() {
    each(|privilege| {
        let machine = Namespace::new(privilege);
        machine.write("a.yaml", RECIPE);
        machine.write("b.yaml", RECIPE);
        for arguments in [
            &["validate", "a.yaml", "b.yaml"][..],
            &["validate", "-f", "a.yaml", "-f", "b.yaml"],
            &["validate", "--file", "a.yaml", "b.yaml"],
            &["validate", "-fa.yaml", "--file=b.yaml"],
        ] {
            let outcome = machine.hostgw_ok(arguments);
            outcome.says("a.yaml is valid").says("b.yaml is valid");
        }
        machine.hostgw(&["validate", "-m", "a.yaml"]).expect(64);
    });
}
