//! Linux: observe and commit. Netlink stays in here.
