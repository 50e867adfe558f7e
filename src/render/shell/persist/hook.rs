//! Routes as a script that runs when the interface has come up.

use super::UnwritableInterface;
use crate::{
    model::Family,
    render::shell::{on_link_first, quoted},
    state::State,
};

/// The program that runs the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookRunner {
    /// With the interface in `IFACE`.
    Ifup,
    /// With the interface and the action as arguments.
    NetworkManager,
}

/// The functions of every script. It adds routes, and `ip route add` never replaces one that is there: a route that
/// exists, whoever made it, stays as it is, and all other failures are reported. It always succeeds, because a script that
/// fails makes ifup report the interface as failed.
const ADD_ROUTES: &str = r#"
[ -n "$(ip link show dev "$interface" up 2>/dev/null)" ] || exit 0
add_routes() {
    LC_ALL=C ip "$1" -force -batch - 2>&1 |
        awk '/^RTNETLINK answers: File exists/ { getline; next } { print "hostgw: " $0 }' >&2
}
"#;

/// The script without its shebang and header.
pub(super) fn content(
    caller: HookRunner,
    state: &State,
    interface: &str,
) -> Result<String, UnwritableInterface> {
    // ip -batch takes quotes and a backslash for quoting, and `#` for a comment.
    if interface.contains(['#', '"', '\'', '\\']) {
        return Err(UnwritableInterface(interface.to_owned()));
    }
    let mut text = format!("\nPATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\ninterface={}\n", quoted(interface));
    text.push_str(match caller {
        HookRunner::Ifup => "[ \"$IFACE\" = \"$interface\" ] || exit 0\n",
        // Not a change of connectivity: that happens when a connection goes down, too, before its addresses are gone.
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
