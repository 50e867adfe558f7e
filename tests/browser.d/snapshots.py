"""Writes two clusters: their configurations, and the snapshots of their nodes, with some problems."""

import hashlib
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])


def address(node):
    return f"172.16.{node // 250}.{node % 250 + 1}"


def pods(node):
    return f"10.{node // 256}.{node % 256}"


def route(destination, device, **more):
    next_hop = {"device": device}
    if "gateway" in more:
        next_hop["gateway"] = more.pop("gateway")
    return {"destination": destination, "table": 254, "metric": 0, "type": "unicast", "nextHop": next_hop, **more}


for size in (3, 300):
    text = "clusterPrefix: 10.0.0.0/8\negressInterface: eth0\nnextHop: node-address\nnat: {masquerade: false}\nnodes:\n"
    for node in range(size):
        text += f"  - {{name: n{node}, os: linux, podCIDR: {pods(node)}.0/24, address: {address(node)}}}\n"
    (folder / f"{size}.yaml").write_text(text)
    snapshots = folder / str(size)
    snapshots.mkdir(exist_ok=True)
    for node in range(size):
        own, cidr = address(node), pods(node)
        # n1 has no route to n0, and the name of n2's machine contains markup.
        others = [other for other in range(size) if other != node and (node, other) != (1, 0)]
        links = [{"name": name, "index": index, "up": True} for index, name in enumerate(["lo", "eth0", "cni0"], 1)]
        sysctls = {"net.ipv4.ip_forward": "1"}
        for name in ["all", "eth0", "cni0"]:
            sysctls[f"net.ipv4.conf.{name}.forwarding"] = "1"
            sysctls[f"net.ipv4.conf.{name}.rp_filter"] = "0"
        snapshot = {
            "format": 2,
            "takenAt": "2026-11-29T20:00:00Z",
            "hostname": "</script><b>n2" if node == 2 else f"n{node}",
            "observed": {
                "state": {
                    "routes": [
                        route(f"{pods(other)}.0/24", "eth0", gateway=address(other), protocol=87, scope="global")
                        for other in others
                    ],
                    "nat": {},
                    "sysctls": sysctls,
                },
                "host": {
                    "links": links,
                    "addresses": [
                        {"device": "eth0", "address": own, "prefix": "172.16.0.0/12"},
                        {"device": "cni0", "address": f"{cidr}.1", "prefix": f"{cidr}.0/24"},
                    ],
                    "foreign": [
                        route(f"{cidr}.0/24", "cni0", protocol=2, scope="link"),
                        route("172.16.0.0/12", "eth0", protocol=2, scope="link"),
                    ],
                    "rules": [
                        {"family": "ipv4", "priority": priority, "selector": {}, "action": {"lookup": table}, "protocol": 2}
                        for priority, table in [(0, 255), (32766, 254)]
                    ],
                    "firewall": {"chains": []},
                },
            },
            "originalSysctls": {},
            "lastApplied": {
                "id": 1,
                "metadata": {
                    "command": "apply",
                    "node": f"n{node}",
                    "configHash": hashlib.sha256(text.encode()).hexdigest(),
                    "at": "2026-11-30T00:53:20Z",
                },
                "state": {"routes": [], "nat": {}, "sysctls": {}},
            },
        }
        # A machine that is no node, whose name must not become part of the page.
        if node == 2:
            stranger = json.loads(json.dumps(snapshot))
            stranger["observed"]["host"]["addresses"] = []
            stranger["lastApplied"]["metadata"]["node"] = "gone"
            (snapshots / "stranger.json").write_text(json.dumps(stranger))
        (snapshots / f"n{node}.json").write_text(json.dumps(snapshot))
