//! The list of all rules.

use std::fmt;

use super::Severity;
use crate::error::RuleCode;

macro_rules! rules {
    ($($code:ident $name:ident $severity:ident $title:literal,)*) => {
        /// A kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $(
                #[doc = $title]
                $name,
            )*
        }

        impl Rule {
            /// All rules, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code, such as `HG0003`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($code),)*
                }
            }

            /// How bad a finding of this rule usually is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }

            /// The problem in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }

            /// The explanation, in Markdown.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$name => include_str!(concat!("rules/", stringify!($code), ".md")),)*
                }
            }
        }
    };
}

rules! {
    HG0001 Syntax Error "invalid syntax",
    HG0002 Limit Error "file too large or too deeply nested",
    HG0003 UnknownKey Error "unknown key",
    HG0004 DuplicateKey Error "duplicate key",
    HG0005 MissingKey Error "missing key",
    HG0006 WrongValue Error "wrong type or value",
    HG0007 TooMany Error "too many entries",
    HG0008 Version Error "unsupported format version",
    HG0009 InvalidAddress Error "invalid address or prefix",
    HG0010 OnePerFamily Error "more than one address for a family, or none",
    HG0101 SpecialPrefix Error "cluster prefix contains special addresses",
    HG0102 NoNodes Error "no nodes",
    HG0103 InvalidInterface Error "invalid interface name",
    HG0104 NoEgressInterface Error "no egress interface",
    HG0105 MasterInCluster Error "API server address inside the cluster prefix",
    HG0106 OverlappingPrefixes Error "overlapping cluster prefixes",
    HG0201 InvalidNodeName Error "invalid node name",
    HG0202 DuplicateNodeName Error "duplicate node name",
    HG0203 DuplicateAddress Error "address already used by another node",
    HG0204 AddressInCluster Error "node address inside the cluster prefix",
    HG0205 MissingAddress Error "node has no address",
    HG0206 CidrOutsideCluster Error "pod CIDR outside the cluster prefix",
    HG0207 CidrCoversCluster Error "pod CIDR covers the whole cluster prefix",
    HG0208 OverlappingCidrs Error "overlapping pod CIDRs",
    HG0209 FamilyMismatch Error "address family without a prefix",
    HG0210 MisplacedGateway Error "unusable pod gateway or next hop",
    HG0211 DefaultGatewayOnLinux Error "defaultGateway on a Linux node",
    HG0212 DefaultGatewayInCluster Error "default gateway inside the cluster prefix",
    HG0213 InvalidPodCidr Error "invalid pod CIDR",
    HG0214 RouterInCluster Error "router as next hop inside the cluster prefix",
    HG0301 DuplicateExclusion Error "duplicate prefix in nat.exclude",
    HG0302 UselessExclusion Error "nat.exclude without effect",
    HG0401 InvalidSysctl Error "sysctl that hostgw cannot manage",
    HG0402 DuplicateSysctl Error "duplicate sysctl",
    HG0403 InvalidSysctlValue Error "invalid sysctl value",
    HG0404 ForwardingOff Error "forwarding disabled",
    HG0501 TableLocal Error "routing table `local` cannot be used",
    HG0502 MtuTooSmall Error "MTU too small for IPv6",
    HG0503 MetricTooLarge Error "metric too large for Windows",
    HG0601 DuplicateCheck Error "duplicate check",
    HG0602 CheckTarget Error "check needs exactly one target",
    HG0603 CheckTimeout Error "invalid timeout of a check",
    HG0701 EgressMissing Error "egress interface does not exist",
    HG0702 EgressDown Error "egress interface is down",
    HG0703 NextHopIsLocal Error "next hop is this node's own address",
    HG0704 NextHopNotOnLink Error "next hop is not on-link",
    HG0705 CutsOffRouter Error "route covers this node's router",
    HG0706 LosesAdvertisedRoute Error "forwarding removes a default route learned from router advertisements",
    HG0707 SysctlMissing Error "sysctl does not exist",
    HG0708 DisableIpv6 Error "disable_ipv6 cannot be managed",
    HG0709 SourceNotLocal Error "source address is not local",
    HG0801 AddressElsewhere Warning "no local interface has the node's address",
    HG0802 Ipv6PodGateway Warning "IPv6 routes through pod gateways",
    HG0803 ShadowedByForeign Warning "foreign route takes precedence",
    HG0804 ShadowsForeign Warning "managed route takes precedence over a foreign one",
    HG0805 InsideNodeNetwork Warning "pod CIDR inside the network of an interface",
    HG0806 Irrevocable Warning "plan removes objects that a rollback cannot restore",
    HG0807 ForeignSysctl Warning "sysctl changed by another program",
    HG0808 BootFileOutdated Warning "boot file is out of date",
    HG0809 BootFileUnused Warning "boot file has no effect",
    HG0810 BootFileUnknown Warning "boot file could not be checked",
    HG0811 NoRecord Warning "original sysctl values unknown",
    HG0812 SkippedOffLink Warning "nodes on other links get no route",
    HG0813 MtuAboveInterface Warning "MTU of routes exceeds that of the interface",
    HG0814 NodeAsRouter Warning "pods reached through another node",
    HG0815 PodNetworkTooLarge Warning "network of the pod interface contains pods of other nodes",
    HG0851 PathByRule Warning "policy rule diverts or drops pod traffic",
    HG0852 PathByRoute Warning "route diverts or drops pod traffic",
    HG0853 PathNotForwarded Warning "interface does not forward pod traffic",
    HG0854 PathFiltered Warning "reverse path filter drops pod traffic",
    HG0855 PathLost Warning "pod traffic is lost",
    HG0860 InterfaceDisconnected Warning "interface is disconnected (Windows)",
    HG0861 FindNetRouteDiffers Warning "Windows uses a different route than its routing table shows",
    HG0862 PathUnknown Warning "path of pod traffic unknown (Windows)",
    HG0901 CniMasquerade Error "CNI masquerades the wrong traffic (Windows)",
    HG0902 CniPlatform Error "CNI plugin for another operating system",
    HG0903 CniSubnet Error "CNI assigns addresses outside the pod CIDR",
    HG0904 CniGateway Error "CNI uses a different pod gateway",
    HG0905 CniIpMasq Error "CNI masquerades on Linux",
    HG0906 CniMtu Error "CNI and routes use different MTUs",
    HG1001 NotApplied Error "node does not match the configuration",
    HG1002 InConflict Error "conflict with foreign objects",
    HG1003 NoPodInterface Warning "no pod interface",
    HG1004 ForwardBlocked Error "firewall drops pod traffic",
    HG1005 ForwardUnclear Warning "firewall may drop pod traffic",
    HG1006 FirewallUnknown Warning "firewall rules could not be read",
    HG1007 LegacyTables Warning "iptables-legacy has rules",
    HG1008 PodsMasqueraded Error "another program masquerades packets between pods",
    HG1009 ForeignMasquerade Error "another program masquerades packets that the configuration excludes",
    HG1010 EgressIsPort Error "egress interface belongs to a bridge or bond",
    HG1011 ArpIgnored Error "node does not answer ARP requests",
    HG1012 NeighborTableSmall Warning "neighbor table too small",
    HG1013 NextHopSilent Error "next hop does not answer",
    HG1014 MtuDiffers Warning "pod MTU exceeds link MTU",
    HG1015 RouteOfNobody Warning "foreign route to an unassigned part of the cluster prefix",
    HG1016 OtherNetworks Warning "packets from other networks are masqueraded",
    HG1017 NetworkdRemovesRoutes Warning "systemd-networkd can remove routes that it did not add",
    HG1018 NetworkManagerRemovesRoutes Warning "NetworkManager removes routes that it did not add",
    HG1019 AddressDuplicate Error "duplicate node address",
    HG1020 AddressFleeting Warning "node address is about to change",
    HG1021 OtherCni Warning "another CNI manages routes to pods",
    HG1022 CloudPodGateway Error "cloud network does not deliver packets to pod gateways",
    HG1023 NoCarrier Error "egress interface has no carrier",
    HG1024 FirewallBelowIp Warning "netdev, bridge, arp or ingress chain may drop pod traffic",
    HG1025 RoutedByMark Warning "policy rule may divert marked pod traffic",
    HG1026 NoPodGateway Error "no interface has the pod gateway",
    HG1027 OwnPacketsBlocked Warning "firewall drops packets from the node itself to pods",
    HG1028 OtherNodesBlocked Warning "traffic between pods and other nodes is dropped",
    HG1030 OwnPodsUnrouted Error "no on-link route to this node's pods (Windows)",
    HG1031 WindowsEgressMissing Error "egress interface not found (Windows)",
    HG1032 LocalAddressInPods Error "local address inside another node's pod CIDR (Windows)",
    HG1033 NoDefaultRoute Error "no default route for masterAddress (Windows)",
    HG1034 FamilyDisabled Error "address family disabled on an interface (Windows)",
    HG1035 OrphanedRoute Warning "persistent route of a removed interface (Windows)",
    HG1040 PartlyBlocked Warning "firewall drops part of the pod traffic",
    HG1041 PodsRedirected Error "another program redirects packets between pods",
    HG1042 OutsideBlocked Warning "firewall blocks traffic from pods to the outside",
    HG1043 DefaultGatewaySilent Warning "default gateway does not answer",
    HG1044 ArpDisabled Error "ARP is off on an interface that carries pod traffic",
    HG1045 ConnectionTableFull Warning "connection tracking table is nearly full",
    HG1046 DiscoveryBlocked Error "firewall drops neighbor discovery",
    HG1047 PodsOverwritten Error "rule overwrites headers of pod traffic",
    HG1048 StaticNeighbor Warning "static neighbor entry for a next hop",
    HG1049 SeveralAnswers Error "several machines answer for a next hop",
    HG1050 OwnAddressUnreachable Error "node does not receive packets to its own address",
    HG1051 NewInterfacesDoNotForward Warning "new interfaces do not forward",
    HG1052 PodsIsolated Warning "pods of this node are isolated from each other",
    HG1053 SecondInterface Warning "pod traffic may arrive on another interface",
    HG1054 PortsNotForwarding Warning "bridge port does not forward",
    HG1100 NotNodes Error "not a list of nodes",
    HG1101 NodeUnreadable Error "node that cannot be imported",
    HG1102 NodeListedTwice Error "node listed twice with different values",
    HG1103 ClusterPrefixUnknown Error "cluster prefix cannot be determined",
    HG1104 NoPodCidrs Error "no pod CIDR to import",
    HG1105 NotEditable Error "file that cannot be edited safely",
    HG1106 NoNodeRoutes Error "no routes to the pods of other nodes",
    HG1107 OwnPodsUnknown Error "pod CIDR of this node unknown",
    HG1108 NotDescribable Error "routes that a configuration cannot describe",
    HG1110 NodeWithoutPodCidr Warning "node without a pod CIDR in the list",
    HG1111 OsUncertain Warning "operating system missing or contradictory",
    HG1112 ClusterPrefixComputed Warning "cluster prefix computed from the pod CIDRs",
    HG1113 FlannelBackend Warning "flannel does not use host-gw, or uses another address",
    HG1114 WindowsAddress Warning "Windows node outside the network of the other nodes",
    HG1115 InternalAddress Warning "InternalIP missing, unusable or ambiguous",
    HG1116 EgressAssumed Warning "egress interface assumed",
    HG1117 OtherAssigner Warning "pod addresses may not come from the pod CIDRs of the API",
    HG1118 FamilyLeftOut Warning "address family left out",
    HG1119 FamiliesApart Warning "nodes listed once for each address family",
    HG1120 LeftOver Warning "foreign objects left over",
    HG1121 SourceNotImported Warning "source address not imported",
    HG1122 NextHopUnknown Warning "next hop unknown",
    HG1123 NatNotImported Warning "NAT rules not imported exactly",
    HG1124 AttributesNotImported Warning "route attributes not imported",
    HG1125 RoutesNotImported Warning "routes not imported that may lead to pods",
    HG1126 OtherObjects Warning "objects that are not nodes",
    HG1200 NoSnapshot Warning "no snapshot of a node",
    HG1201 SnapshotUnusable Error "unusable snapshot",
    HG1202 SnapshotTwice Warning "several snapshots of the same node",
    HG1203 SnapshotOld Warning "outdated snapshot",
    HG1204 SnapshotIncomplete Warning "incomplete snapshot",
    HG1205 UnknownMachine Error "machine not in the configuration",
    HG1206 OtherConfiguration Warning "different configuration applied",
    HG1207 NeverApplied Warning "no apply recorded",
    HG1210 RouteMissing Error "missing routes",
    HG1211 RouteDiffers Error "routes differ from the configuration",
    HG1212 RouteLeftOver Warning "leftover routes",
    HG1213 NatDiffers Error "NAT differs from the configuration",
    HG1214 SysctlDiffers Error "sysctls differ from the configuration",
    HG1220 AddressMoved Error "node lacks its configured address",
    HG1221 AddressTwice Error "duplicate address",
    HG1222 NeighborsDiffer Error "neighbor tables disagree",
    HG1223 OneWay Error "one-way traffic",
}

impl Rule {
    /// The number in the code.
    #[must_use]
    pub fn number(self) -> RuleCode {
        RuleCode(self.code().trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0))
    }

    /// Finds a rule by its code, in upper or lower case.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.code().eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<&str> = Rule::ALL.iter().map(|rule| rule.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }

    #[test]
    fn a_rule_is_found_by_its_code() {
        for rule in Rule::ALL {
            assert_eq!(Rule::find(&rule.code().to_lowercase()), Some(*rule));
            assert_eq!(rule.number().to_string(), rule.code());
            assert_eq!(RuleCode::try_from(rule.code().to_owned()), Ok(rule.number()));
        }
        assert_eq!(Rule::find("HG9999"), None);
    }

    #[test]
    fn every_explanation_begins_with_the_title_and_says_more() {
        for rule in Rule::ALL {
            let text = rule.explanation();
            let rest = text.strip_prefix(&format!("# {}\n\n", rule.title()));
            assert!(rest.is_some_and(|rest| rest.len() > 80), "{rule}: {text}");
        }
    }

    #[test]
    fn every_file_is_the_explanation_of_a_rule() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/diagnose/rules");
        for entry in std::fs::read_dir(folder).expect("the folder of the rules") {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            assert!(name.strip_suffix(".md").and_then(Rule::find).is_some(), "{name}");
        }
    }
}
