//! Constants of the expressions of other programs' rules: enum nft_meta_keys, enum nft_ct_keys and the like
//! (linux/netfilter/nf_tables.h).

pub const META_DREG: u16 = 1;
pub const META_KEY: u16 = 2;
pub const META_LEN: u32 = 0;
pub const META_PROTOCOL: u32 = 1;
pub const META_L4PROTO: u32 = 16;
pub const META_CPU: u32 = 20;
pub const META_PRANDOM: u32 = 24;
pub const LOOKUP_SET: u16 = 1;
pub const LOOKUP_SREG: u16 = 2;
pub const LOOKUP_FLAGS: u16 = 5;
/// `NFT_PAYLOAD_LL_HEADER`.
pub const LINK_HEADER: u32 = 0;
pub const META_MARK: u32 = 3;
pub const META_IIF: u32 = 4;
pub const META_OIF: u32 = 5;
pub const META_IIFNAME: u32 = 6;
pub const META_OIFNAME: u32 = 7;
pub const META_NFPROTO: u32 = 15;
pub const CT_DREG: u16 = 1;
pub const CT_KEY: u16 = 2;
pub const CT_STATE: u32 = 0;
pub const CT_DIRECTION: u32 = 1;
pub const CT_STATUS: u32 = 2;
pub const CT_MARK: u32 = 3;
pub const CT_BYTES: u32 = 15;
pub const CT_AVERAGE: u32 = 16;
pub const CT_PACKETS: u32 = 14;
pub const FIB_SADDR: u32 = 1;
pub const FIB_IIF: u32 = 8;
pub const FIB_PRESENT: u32 = 32;
pub const FIB_MARK: u32 = 4;
pub const FIB_OIF: u32 = 1;
pub const META_SREG: u16 = 3;
pub const META_PKTTYPE: u32 = 19;
pub const META_IIFGROUP: u32 = 21;
pub const META_OIFGROUP: u32 = 22;
pub const META_IIFKIND: u32 = 26;
pub const META_OIFKIND: u32 = 27;
pub const META_PRIORITY: u32 = 2;
pub const META_NFTRACE: u32 = 12;
pub const META_SECMARK: u32 = 14;
pub const CT_DIRECTION_OF_KEY: u16 = 3;
pub const CT_SREG: u16 = 4;
pub const CT_SECMARK: u32 = 4;
pub const CT_LABELS: u32 = 13;
pub const CT_ZONE: u32 = 17;
pub const CT_EVENTMASK: u32 = 18;
pub const PAYLOAD_SREG: u16 = 5;
pub const HASH_DREG: u16 = 2;
pub const NUMGEN_DREG: u16 = 1;
pub const NUMGEN_MODULUS: u16 = 2;
pub const NUMGEN_OFFSET: u16 = 4;
pub const BYTEORDER_SREG: u16 = 1;
pub const BYTEORDER_DREG: u16 = 2;
pub const BYTEORDER_LEN: u16 = 4;
pub const BYTEORDER_SIZE: u16 = 5;
/// `NFTA_CONNLIMIT_COUNT`, `NFTA_CONNLIMIT_FLAGS`.
pub const CONNLIMIT_COUNT: u16 = 1;
pub const CONNLIMIT_FLAGS: u16 = 2;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub const TRANSPORT_HEADER: u32 = 2;
pub const RANGE_SREG: u16 = 1;
pub const RANGE_OP: u16 = 2;
pub const RANGE_FROM: u16 = 3;
pub const RANGE_TO: u16 = 4;
/// `NFTA_LIMIT_*` and `NFT_LIMIT_F_INV`; the type of a limit of bytes is 1.
pub const LIMIT_RATE: u16 = 1;
pub const LIMIT_UNIT: u16 = 2;
pub const LIMIT_BURST: u16 = 3;
pub const LIMIT_TYPE: u16 = 4;
pub const LIMIT_FLAGS: u16 = 5;
/// `NFTA_OBJREF_IMM_TYPE`, `NFTA_OBJREF_IMM_NAME`, and `NFT_OBJECT_QUOTA`, `_LIMIT`, `_CONNLIMIT`, `_SYNPROXY`.
pub const OBJECT_TYPE: u16 = 1;
pub const OBJECT_NAME: u16 = 2;
/// `NFT_OBJECT_COUNTER`, `_CT_HELPER`, `_TUNNEL`, `_CT_TIMEOUT`, `_SECMARK`, `_CT_EXPECT`: they let every packet pass.
pub const OBJECTS_WITHOUT_CONDITION: [u32; 6] = [1, 3, 6, 7, 8, 9];
pub const OBJECT_QUOTA: u32 = 2;
pub const OBJECT_LIMIT: u32 = 4;
pub const OBJECT_CONNLIMIT: u32 = 5;
pub const OBJECT_SYNPROXY: u32 = 10;
pub const DYNSET_EXPR: u16 = 7;
pub const DYNSET_EXPRESSIONS: u16 = 10;
/// `NFTA_TARGET_*` and `NFTA_MATCH_*` (linux/netfilter/nf_tables_compat.h).
pub const XT_NAME: u16 = 1;
pub const XT_REVISION: u16 = 2;
pub const XT_INFO: u16 = 3;
pub const LOOKUP_DREG: u16 = 3;
pub const VERDICT_CHAIN: u16 = 2;
