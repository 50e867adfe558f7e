//! Renders routes as a script that runs when the interface comes up.

use super::UnwritableInterface;
use crate::{
    model::Family,
    render::shell::{on_link_first, quoted},
    state::State,
};

/// The program that runs the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookRunner {
    /// ifup, which passes the interface in `IFACE`.
    Ifup,
    /// NetworkManager, which passes the interface and the action as arguments.
    NetworkManager,
}

/// The functions of every script. `ip route add` never replaces an existing route, whether managed or foreign; all
/// other failures are reported. The script always succeeds, because a failing script makes ifup report the interface
/// as failed.
const ADD_ROUTES: &str = r#"
[ -n "$(ip link show dev "$interface" up 2>/dev/null)" ] || exit 0
add_routes() {
    LC_ALL=C ip "$1" -force -batch - 2>&1 |
        awk '/^RTNETLINK answers: File exists/ { getline; next } { print "hostgw: " $0 }' >&2
}
"#;

/// Renders the script without its shebang and header.
pub(super) fn content(
    caller: HookRunner,
    state: &State,
    interface: &str,
) -> Result<String, UnwritableInterface> {
    // ip -batch interprets quotes and backslashes, and `#` begins a comment.
    if interface.contains(['#', '"', '\'', '\\']) {
        return Err(UnwritableInterface(interface.to_owned()));
    }
    let mut text = format!("\nPATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\ninterface={}\n", quoted(interface));
    text.push_str(match caller {
        HookRunner::Ifup => "[ \"$IFACE\" = \"$interface\" ] || exit 0\n",
        // Not `connectivity-change`: that also happens when a connection goes down, before its addresses are removed.
        HookRunner::NetworkManager => {
            "[ \"$1\" = \"$interface\" ] || exit 0\n\
             case $2 in up | reapply | dhcp4-change | dhcp6-change) ;; *) exit 0 ;; esac\n"
        }
    });
    text.push_str(ADD_ROUTES);
    for family in Family::ALL {
        let routes: String = on_link_first(state)
            .filter(|route| route.family() == family)
            .map(|route| format!("route add {route}\n"))
            .collect();
        if !routes.is_empty() {
            let option = if family == Family::V6 { "-6" } else { "-4" };
            text.push_str(&format!("add_routes {option} <<'END'\n{routes}END\n"));
        }
    }
    text.push_str("exit 0\n");
    Ok(text)
}
