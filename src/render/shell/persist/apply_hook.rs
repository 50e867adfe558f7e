//! Scripts that run `hostgw apply` when the egress interface comes up.

use super::PersistedNode;
use crate::render::shell::quoted;

/// The program that runs the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyHook {
    /// `networkd-dispatcher(8)`, which passes the interface in `IFACE`.
    NetworkdDispatcher,
    /// `NetworkManager-dispatcher(8)`, which passes the interface and the action as arguments.
    NetworkManager,
    /// `ifup(8)`, which passes the interface in `IFACE`.
    Ifup,
}

/// The end of every script. The script always succeeds, because a failing script makes `ifup` report the interface as failed.
const APPLY: &str = "cd /etc/hostgw || exit 0\nhostgw apply --yes --node \"$node\" >/dev/null\nexit 0\n";

impl ApplyHook {
    pub(super) const ALL: [Self; 3] = [Self::NetworkdDispatcher, Self::NetworkManager, Self::Ifup];

    /// The value of `--persist`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NetworkdDispatcher => "networkd-dispatcher",
            Self::NetworkManager => "networkmanager-apply",
            Self::Ifup => "ifupdown-apply",
        }
    }

    /// Renders the script without its shebang and header.
    pub(super) fn content(self, node: PersistedNode) -> String {
        let condition = match self {
            Self::NetworkdDispatcher | Self::Ifup => "[ \"$IFACE\" = \"$interface\" ] || exit 0\n",
            Self::NetworkManager => {
                "[ \"$1\" = \"$interface\" ] || exit 0\n\
                 case $2 in up | reapply | dhcp4-change | dhcp6-change) ;; *) exit 0 ;; esac\n"
            }
        };
        format!(
            "\nPATH=$PATH:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\ninterface={}\nnode={}\n{condition}{APPLY}",
            quoted(node.interface),
            quoted(node.name)
        )
    }

    /// Where to install the file, and what runs it.
    pub(super) fn instructions(self, interface: &str) -> String {
        let install = match self {
            Self::NetworkdDispatcher => format!(
                "Install as /etc/networkd-dispatcher/routable.d/50-hostgw, owned by root, with mode 755.\n\
                 networkd-dispatcher runs it when {interface} gets its address, and once when networkd-dispatcher starts."
            ),
            Self::NetworkManager => format!(
                "Install as /etc/NetworkManager/dispatcher.d/90-hostgw-apply, owned by root, with mode 755.\n\
                 NetworkManager runs it when {interface} comes up or gets a different DHCP lease."
            ),
            Self::Ifup => format!(
                "Install as /etc/network/if-up.d/hostgw-apply with mode 755. ifup runs it after bringing up {interface}.\n\
                 With ifupdown2, set addon_scripts_support=1 in /etc/network/ifupdown2/ifupdown2.conf."
            ),
        };
        format!(
            "{install}\n\
             It applies the configuration in /etc/hostgw: routes, NAT and sysctls. No other boot file is necessary."
        )
    }
}
