//! Numbers of the nftables netlink interface: linux/netfilter/nf_tables.h, unless another header is named.

use crate::model::Family;

/// `NFNL_SUBSYS_NFTABLES << 8` (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 10 << 8;

/// enum nf_tables_msg_types, with the subsystem.
pub(super) mod message {
    use super::SUBSYSTEM;
    pub(in super::super) const NEWTABLE: u16 = SUBSYSTEM;
    pub(in super::super) const GETTABLE: u16 = SUBSYSTEM + 1;
    pub(in super::super) const GETCHAIN: u16 = SUBSYSTEM + 4;
    pub(in super::super) const NEWRULE: u16 = SUBSYSTEM + 6;
    pub(in super::super) const GETRULE: u16 = SUBSYSTEM + 7;
    pub(in super::super) const GETSET: u16 = SUBSYSTEM + 10;
    pub(in super::super) const NEWGEN: u16 = SUBSYSTEM + 15;
    pub(in super::super) const GETGEN: u16 = SUBSYSTEM + 16;
    pub(in super::super) const GETOBJ: u16 = SUBSYSTEM + 19;
    pub(in super::super) const GETFLOWTABLE: u16 = SUBSYSTEM + 23;
}

/// `sizeof(struct nfgenmsg)` (linux/netfilter/nfnetlink.h), before the attributes of every message.
pub(super) const GENERIC_HEADER: usize = 4;

/// `NFPROTO_IPV4`, `NFPROTO_IPV6` (linux/netfilter.h).
pub(super) const fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// `NFTA_GEN_ID`.
pub(super) const GEN_ID: u16 = 1;

/// enum nft_table_attributes.
pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const FLAGS: u16 = 2;
    /// `NFT_TABLE_F_DORMANT`.
    pub(in super::super) const DORMANT: u32 = 1;
}

/// enum nft_chain_attributes, enum nft_hook_attributes.
pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const FLAGS: u16 = 10;
    /// `NFT_CHAIN_BASE`: the one flag that says nothing new.
    pub(in super::super) const FLAG_BASE: u32 = 1;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
}

/// enum nft_rule_attributes.
pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const USERDATA: u16 = 7;
    /// `NFTNL_UDATA_RULE_COMMENT` (libnftnl/udata.h), a type inside the user data.
    pub(in super::super) const COMMENT: u8 = 0;
}

/// Names of sets, objects and flow tables: enum nft_set_attributes, nft_object_attributes, nft_flowtable_attributes.
pub(super) mod other {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    /// `NFTA_SET_FLAGS` and `NFTA_OBJ_TYPE`.
    pub(in super::super) const KIND: u16 = 3;
    /// `NFT_SET_MAP | NFT_SET_OBJECT`.
    pub(in super::super) const MAPS: u32 = 0x8 | 0x40;
}

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEMENT: u16 = 1;

/// Attributes of expressions: enum nft_expr_attributes and one enum per expression.
pub(super) mod expr {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;

    pub(in super::super) const PAYLOAD_DREG: u16 = 1;
    pub(in super::super) const PAYLOAD_BASE: u16 = 2;
    pub(in super::super) const PAYLOAD_OFFSET: u16 = 3;
    pub(in super::super) const PAYLOAD_LEN: u16 = 4;
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    pub(in super::super) const NETWORK_HEADER: u32 = 1;

    pub(in super::super) const BITWISE_SREG: u16 = 1;
    pub(in super::super) const BITWISE_DREG: u16 = 2;
    pub(in super::super) const BITWISE_LEN: u16 = 3;
    pub(in super::super) const BITWISE_MASK: u16 = 4;
    pub(in super::super) const BITWISE_XOR: u16 = 5;
    pub(in super::super) const BITWISE_OP: u16 = 6;
    /// `NFT_BITWISE_MASK_XOR`, called `NFT_BITWISE_BOOL` before.
    pub(in super::super) const MASK_XOR: u32 = 0;

    pub(in super::super) const CMP_SREG: u16 = 1;
    pub(in super::super) const CMP_OP: u16 = 2;
    pub(in super::super) const CMP_DATA: u16 = 3;
    pub(in super::super) const CMP_EQ: u32 = 0;
    pub(in super::super) const CMP_NEQ: u32 = 1;

    pub(in super::super) const FIB_DREG: u16 = 1;
    pub(in super::super) const FIB_RESULT: u16 = 2;
    pub(in super::super) const FIB_FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_ADDRTYPE`.
    pub(in super::super) const FIB_ADDRTYPE: u32 = 3;
    /// `NFTA_FIB_F_DADDR`.
    pub(in super::super) const FIB_DADDR: u32 = 2;
    /// `RTN_LOCAL` (linux/rtnetlink.h); an address type stands in the host's byte order.
    pub(in super::super) const LOCAL: u32 = 2;

    pub(in super::super) const COUNTER_BYTES: u16 = 1;
    pub(in super::super) const COUNTER_PACKETS: u16 = 2;
    pub(in super::super) const COUNTER_PAD: u16 = 3;

    pub(in super::super) const QUOTA_FLAGS: u16 = 2;
    /// `NFT_QUOTA_F_DEPLETED`, in the last byte of the flags.
    pub(in super::super) const QUOTA_DEPLETED: u8 = 2;
    pub(in super::super) const QUOTA_CONSUMED: u16 = 4;
    pub(in super::super) const LAST_SET: u16 = 1;
    pub(in super::super) const LAST_MSECS: u16 = 2;

    pub(in super::super) const MASQ_FLAGS: u16 = 1;

    pub(in super::super) const IMMEDIATE_DREG: u16 = 1;
    pub(in super::super) const IMMEDIATE_DATA: u16 = 2;

    /// enum nft_data_attributes, enum nft_verdict_attributes.
    pub(in super::super) const DATA_VALUE: u16 = 1;
    pub(in super::super) const DATA_VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;

    /// enum nft_registers.
    pub(in super::super) const REG_VERDICT: u32 = 0;
    pub(in super::super) const REG_1: u32 = 1;
    /// `NFT_RETURN` of enum nft_verdicts.
    pub(in super::super) const RETURN: i32 = -5;
}
