//! Constants of the nftables netlink interface, from linux/netfilter/nf_tables.h unless another header is named.

use crate::{
    kernel::netlink::{NLM_F_REQUEST, put_message},
    model::Family,
};

/// `NFNL_SUBSYS_NFTABLES << 8` (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 10 << 8;

/// enum nf_tables_msg_types, with the subsystem.
pub(in crate::kernel) mod message {
    use super::SUBSYSTEM;
    pub(in crate::kernel) const NEWTABLE: u16 = SUBSYSTEM;
    pub(in crate::kernel) const GETTABLE: u16 = SUBSYSTEM + 1;
    pub(in crate::kernel) const DELTABLE: u16 = SUBSYSTEM + 2;
    pub(in crate::kernel) const NEWCHAIN: u16 = SUBSYSTEM + 3;
    pub(in crate::kernel) const GETCHAIN: u16 = SUBSYSTEM + 4;
    pub(in crate::kernel) const NEWRULE: u16 = SUBSYSTEM + 6;
    pub(in crate::kernel) const GETRULE: u16 = SUBSYSTEM + 7;
    pub(in crate::kernel) const NEWSET: u16 = SUBSYSTEM + 9;
    pub(in crate::kernel) const GETSET: u16 = SUBSYSTEM + 10;
    pub(in crate::kernel) const NEWSETELEM: u16 = SUBSYSTEM + 12;
    pub(in crate::kernel) const GETSETELEM: u16 = SUBSYSTEM + 13;
    pub(in crate::kernel) const NEWGEN: u16 = SUBSYSTEM + 15;
    pub(in crate::kernel) const GETGEN: u16 = SUBSYSTEM + 16;
    pub(in crate::kernel) const TRACE: u16 = SUBSYSTEM + 17;
    pub(in crate::kernel) const NEWOBJ: u16 = SUBSYSTEM + 18;
    pub(in crate::kernel) const GETOBJ: u16 = SUBSYSTEM + 19;
    pub(in crate::kernel) const NEWFLOWTABLE: u16 = SUBSYSTEM + 22;
    pub(in crate::kernel) const GETFLOWTABLE: u16 = SUBSYSTEM + 23;
}

/// `sizeof(struct nfgenmsg)` (linux/netfilter/nfnetlink.h), the header before the attributes of every message.
pub(in crate::kernel) const GENERIC_HEADER: usize = 4;

/// `NFPROTO_IPV4`, `NFPROTO_IPV6` (linux/netfilter.h).
pub(in crate::kernel) const fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// `NFNL_MSG_BATCH_BEGIN` (linux/netfilter/nfnetlink.h).
pub(in crate::kernel) const BATCH_BEGIN: u16 = 16;

/// `NFNL_MSG_BATCH_END` (linux/netfilter/nfnetlink.h).
const BATCH_END: u16 = 17;

/// Encodes a batch: the messages that `put` adds, as one transaction.
///
/// # Errors
/// Returns the error of `put`.
pub(in crate::kernel) fn batch<E>(put: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let [high, low] = BATCH_SUBSYSTEM.to_be_bytes();
    let mut bytes = Vec::new();
    put_message(&mut bytes, BATCH_BEGIN, NLM_F_REQUEST, 0, &[0, 0, high, low]);
    put(&mut bytes)?;
    put_message(&mut bytes, BATCH_END, NLM_F_REQUEST, 0, &[0, 0, high, low]);
    Ok(bytes)
}

/// `NFNL_BATCH_GENID` (linux/netfilter/nfnetlink.h).
pub(in crate::kernel) const BATCH_GENID: u16 = 1;

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h), in the header of the message that begins a batch.
pub(in crate::kernel) const BATCH_SUBSYSTEM: u16 = SUBSYSTEM >> 8;

/// `NFTA_GEN_ID`.
pub(in crate::kernel) const GEN_ID: u16 = 1;

/// enum nft_table_attributes.
pub(in crate::kernel) mod table {
    pub(in crate::kernel) const NAME: u16 = 1;
    pub(in crate::kernel) const FLAGS: u16 = 2;
    /// `NFT_TABLE_F_DORMANT`.
    pub(in crate::kernel) const DORMANT: u32 = 1;
}

/// enum nft_chain_attributes, enum nft_hook_attributes.
pub(in crate::kernel) mod chain {
    pub(in crate::kernel) const TABLE: u16 = 1;
    pub(in crate::kernel) const NAME: u16 = 3;
    pub(in crate::kernel) const HOOK: u16 = 4;
    pub(in crate::kernel) const POLICY: u16 = 5;
    pub(in crate::kernel) const TYPE: u16 = 7;
    pub(in crate::kernel) const FLAGS: u16 = 10;
    /// `NFT_CHAIN_BASE`, which is redundant: a base chain has a hook.
    pub(in crate::kernel) const FLAG_BASE: u32 = 1;
    pub(in crate::kernel) const HOOK_NUMBER: u16 = 1;
    pub(in crate::kernel) const HOOK_PRIORITY: u16 = 2;
    /// `NFTA_HOOK_DEV`, and `NFTA_HOOK_DEVS`, a list of `NFTA_DEVICE_NAME`.
    pub(in crate::kernel) const HOOK_DEVICE: u16 = 3;
    pub(in crate::kernel) const HOOK_DEVICES: u16 = 4;
    /// `NF_INET_INGRESS`.
    pub(in crate::kernel) const INET_INGRESS: u32 = 5;
}

/// enum nft_rule_attributes.
pub(in crate::kernel) mod rule {
    pub(in crate::kernel) const TABLE: u16 = 1;
    pub(in crate::kernel) const CHAIN: u16 = 2;
    pub(in crate::kernel) const HANDLE: u16 = 3;
    pub(in crate::kernel) const EXPRESSIONS: u16 = 4;
    pub(in crate::kernel) const USERDATA: u16 = 7;
    /// `NFTNL_UDATA_RULE_COMMENT` (libnftnl/udata.h), a type within the user data.
    pub(in crate::kernel) const COMMENT: u8 = 0;
}

/// Attributes that sets, named objects and flow tables share: enum nft_set_attributes, nft_object_attributes,
/// nft_flowtable_attributes.
pub(in crate::kernel) mod other {
    pub(in crate::kernel) const TABLE: u16 = 1;
    pub(in crate::kernel) const NAME: u16 = 2;
    /// `NFTA_SET_FLAGS` and `NFTA_OBJ_TYPE`.
    pub(in crate::kernel) const KIND: u16 = 3;
    /// `NFTA_OBJ_DATA`.
    pub(in crate::kernel) const DATA: u16 = 4;
    /// `NFT_SET_MAP | NFT_SET_OBJECT`.
    pub(in crate::kernel) const MAPS: u32 = 0x8 | 0x40;
}

/// enum nft_set_elem_list_attributes, enum nft_set_elem_attributes.
pub(in crate::kernel) mod elements {
    pub(in crate::kernel) const TABLE: u16 = 1;
    pub(in crate::kernel) const SET: u16 = 2;
    pub(in crate::kernel) const LIST: u16 = 3;
    pub(in crate::kernel) const KEY: u16 = 1;
    pub(in crate::kernel) const DATA: u16 = 2;
    pub(in crate::kernel) const FLAGS: u16 = 3;
    pub(in crate::kernel) const KEY_END: u16 = 10;
    /// `NFT_SET_ELEM_CATCHALL`.
    pub(in crate::kernel) const CATCHALL: u32 = 2;
    /// `NFTA_SET_DESC`, `NFTA_SET_DESC_CONCAT`, `NFTA_SET_FIELD_LEN`.
    pub(in crate::kernel) const DESCRIPTION: u16 = 9;
    pub(in crate::kernel) const CONCATENATION: u16 = 2;
    pub(in crate::kernel) const FIELD_LENGTH: u16 = 1;
}

/// `NFTA_LIST_ELEM`.
pub(in crate::kernel) const LIST_ELEMENT: u16 = 1;

/// Attributes of expressions: enum nft_expr_attributes, and one enum per expression.
pub(in crate::kernel) mod expr {
    pub(in crate::kernel) const NAME: u16 = 1;
    pub(in crate::kernel) const DATA: u16 = 2;

    pub(in crate::kernel) const PAYLOAD_DREG: u16 = 1;
    pub(in crate::kernel) const PAYLOAD_BASE: u16 = 2;
    pub(in crate::kernel) const PAYLOAD_OFFSET: u16 = 3;
    pub(in crate::kernel) const PAYLOAD_LEN: u16 = 4;
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    pub(in crate::kernel) const NETWORK_HEADER: u32 = 1;

    pub(in crate::kernel) const BITWISE_SREG: u16 = 1;
    pub(in crate::kernel) const BITWISE_DREG: u16 = 2;
    pub(in crate::kernel) const BITWISE_LEN: u16 = 3;
    pub(in crate::kernel) const BITWISE_MASK: u16 = 4;
    pub(in crate::kernel) const BITWISE_XOR: u16 = 5;
    pub(in crate::kernel) const BITWISE_OP: u16 = 6;
    /// `NFT_BITWISE_MASK_XOR`, formerly `NFT_BITWISE_BOOL`.
    pub(in crate::kernel) const MASK_XOR: u32 = 0;

    pub(in crate::kernel) const CMP_SREG: u16 = 1;
    pub(in crate::kernel) const CMP_OP: u16 = 2;
    pub(in crate::kernel) const CMP_DATA: u16 = 3;
    pub(in crate::kernel) const CMP_EQ: u32 = 0;
    pub(in crate::kernel) const CMP_NEQ: u32 = 1;

    pub(in crate::kernel) const FIB_DREG: u16 = 1;
    pub(in crate::kernel) const FIB_RESULT: u16 = 2;
    pub(in crate::kernel) const FIB_FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_ADDRTYPE`.
    pub(in crate::kernel) const FIB_ADDRTYPE: u32 = 3;
    /// `NFTA_FIB_F_DADDR`.
    pub(in crate::kernel) const FIB_DADDR: u32 = 2;
    /// `RTN_LOCAL` (linux/rtnetlink.h). Address types are in host byte order.
    pub(in crate::kernel) const LOCAL: u32 = 2;

    pub(in crate::kernel) const COUNTER_BYTES: u16 = 1;
    pub(in crate::kernel) const COUNTER_PACKETS: u16 = 2;
    pub(in crate::kernel) const COUNTER_PAD: u16 = 3;

    pub(in crate::kernel) const QUOTA_FLAGS: u16 = 2;
    /// `NFT_QUOTA_F_DEPLETED`, in the last byte of the flags.
    pub(in crate::kernel) const QUOTA_DEPLETED: u8 = 2;
    pub(in crate::kernel) const QUOTA_CONSUMED: u16 = 4;
    pub(in crate::kernel) const LAST_SET: u16 = 1;
    pub(in crate::kernel) const LAST_MSECS: u16 = 2;

    pub(in crate::kernel) const MASQ_FLAGS: u16 = 1;

    pub(in crate::kernel) const NAT_TYPE: u16 = 1;
    pub(in crate::kernel) const NAT_FAMILY: u16 = 2;
    pub(in crate::kernel) const NAT_ADDRESS_MIN: u16 = 3;
    pub(in crate::kernel) const NAT_ADDRESS_MAX: u16 = 4;
    pub(in crate::kernel) const NAT_PORT_MIN: u16 = 5;
    pub(in crate::kernel) const NAT_PORT_MAX: u16 = 6;
    pub(in crate::kernel) const NAT_FLAGS: u16 = 7;
    /// `NFT_NAT_SNAT` of enum nft_nat_types.
    pub(in crate::kernel) const NAT_SOURCE: u32 = 0;
    /// `NF_NAT_RANGE_MAP_IPS` (linux/netfilter/nf_nat.h), which the kernel adds to the flags of a rule with an address.
    pub(in crate::kernel) const NAT_HAS_ADDRESS: u32 = 1;

    pub(in crate::kernel) const IMMEDIATE_DREG: u16 = 1;
    pub(in crate::kernel) const IMMEDIATE_DATA: u16 = 2;

    /// enum nft_data_attributes, enum nft_verdict_attributes.
    pub(in crate::kernel) const DATA_VALUE: u16 = 1;
    pub(in crate::kernel) const DATA_VERDICT: u16 = 2;
    pub(in crate::kernel) const VERDICT_CODE: u16 = 1;

    /// enum nft_registers.
    pub(in crate::kernel) const REG_VERDICT: u32 = 0;
    pub(in crate::kernel) const REG_1: u32 = 1;
    /// `NFT_RETURN` of enum nft_verdicts.
    pub(in crate::kernel) const RETURN: i32 = -5;
}
