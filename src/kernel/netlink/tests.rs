use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::{wire::*, *};
use crate::kernel::testing::in_namespace;
use proptest::prelude::*;

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_message(&mut bytes, kind, flags, sequence, payload);
    bytes
}

fn error(errno: Errno, echoed: usize) -> Vec<u8> {
    let mut payload = (-errno.raw_os_error()).to_ne_bytes().to_vec();
    payload.extend(u32::try_from(echoed).expect("short").to_ne_bytes());
    payload.resize(4 + echoed.next_multiple_of(4), 0);
    payload
}

fn outcome(bytes: &[u8]) -> Result<Option<Result<(), KernelError>>, Malformed> {
    Messages(bytes).next().expect("a message")?.outcome()
}

fn rejection(bytes: &[u8]) -> KernelError {
    outcome(bytes).expect("well-formed").expect("an outcome").expect_err("a rejection")
}

#[test]
fn reads_the_extended_acknowledgment_of_errors() {
    for (flags, echoed) in [(NLM_F_CAPPED, HEADER), (0, HEADER + 13)] {
        let mut payload = error(Errno::NETUNREACH, echoed);
        put_attribute(&mut payload, NLMSGERR_ATTR_MSG, b"Nexthop has invalid gateway\0").expect("short");
        put_attribute(&mut payload, NLMSGERR_ATTR_OFFS, &36u32.to_ne_bytes()).expect("short");
        let error = rejection(&message(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, 7, &payload));
        assert_eq!(error.to_string(), "Nexthop has invalid gateway (ENETUNREACH)");
        assert_eq!((error.offset, error.missing), (Some(36), None));
    }
}

#[test]
fn reads_plain_errors_acknowledgments_and_ends() {
    let plain = rejection(&message(NLMSG_ERROR, NLM_F_CAPPED, 1, &error(Errno::NODEV, HEADER)));
    assert_eq!(plain.to_string(), "No such device (ENODEV)");
    let mut acknowledgment = vec![0; 4];
    acknowledgment.resize(4 + HEADER, 0);
    assert_eq!(outcome(&message(NLMSG_ERROR, 0, 1, &acknowledgment)), Ok(Some(Ok(()))));
    assert_eq!(outcome(&message(NLMSG_DONE, 0, 1, &[0; 4])), Ok(Some(Ok(()))));
    assert_eq!(outcome(&message(NLMSG_DONE, 0, 1, &[])), Ok(Some(Ok(()))));
    assert_eq!(outcome(&message(24, 0, 1, &[])), Ok(None));
}

#[test]
fn reads_errors_inside_done() {
    let mut payload = (-Errno::INVAL.raw_os_error()).to_ne_bytes().to_vec();
    put_attribute(&mut payload, NLMSGERR_ATTR_MSG, b"bad filter\0").expect("short");
    put_attribute(&mut payload, NLMSGERR_ATTR_MISS_TYPE, &4u32.to_ne_bytes()).expect("short");
    let error = rejection(&message(NLMSG_DONE, NLM_F_ACK_TLVS, 1, &payload));
    assert_eq!(error.to_string(), "bad filter (EINVAL)");
    assert_eq!(error.missing, Some(4));
}

#[test]
fn rejects_malformed_messages() {
    assert_eq!(outcome(&message(NLMSG_ERROR, 0, 1, &[1])), Err(Malformed));
    assert_eq!(outcome(&message(NLMSG_ERROR, 0, 1, &i32::MIN.to_ne_bytes())), Err(Malformed));
    assert_eq!(outcome(&message(1, 0, 1, &[])), Err(Malformed));
    assert_eq!(outcome(&[1, 2, 3]), Err(Malformed));
    let mut short = message(24, 0, 1, &[0; 8]);
    short.truncate(20);
    assert_eq!(outcome(&short), Err(Malformed));
    // A malformed extended acknowledgment does not hide the error.
    let mut payload = error(Errno::EXIST, HEADER);
    payload.extend([0xff; 7]);
    let error = rejection(&message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 1, &payload));
    assert_eq!(error, Errno::EXIST.into());
}

#[test]
fn attributes_end_after_a_malformed_one() {
    let mut bytes = Vec::new();
    put_attribute(&mut bytes, 3 | 0x8000, b"abcde").expect("short");
    put_attribute(&mut bytes, 4, b"").expect("short");
    bytes.extend([3, 0, 1, 0]);
    let all: Vec<_> = Attributes::new(&bytes).collect();
    assert_eq!(all, [Ok((3, b"abcde".as_slice())), Ok((4, b"".as_slice())), Err(Malformed)]);
    assert_eq!(put_attribute(&mut bytes, 1, &[0; 65_532]), Err(Malformed));
}

#[test]
fn numbers_a_batch_and_asks_once() {
    let mut bytes = message(16, NLM_F_ACK, 0, &[0; 4]);
    bytes.extend(message(2560, NLM_F_ACK | NLM_F_REQUEST, 9, &[0; 7]));
    bytes.extend(message(17, 0, 9, &[0; 4]));
    number(&mut bytes, u32::MAX, 1).expect("well-formed");
    let seen: Vec<_> =
        Messages(&bytes).map(|m| m.map(|m| (m.sequence, m.flags)).expect("well-formed")).collect();
    assert_eq!(seen, [(u32::MAX, 0), (0, NLM_F_ACK | NLM_F_REQUEST), (1, 0)]);
    bytes.push(0);
    number(&mut bytes, 1, 1).expect_err("a byte too many");
}

#[test]
fn an_unprivileged_dump_works_with_any_buffer() {
    let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
    // RTM_GETLINK with an all-zero struct ifinfomsg (linux/rtnetlink.h).
    let whole = socket.dump(18, 0, &[0; 16]).expect("links").iter().count();
    socket.buffer = Vec::with_capacity(32);
    let again = socket.dump(18, 0, &[0; 16]).expect("links, on the second attempt").iter().count();
    assert!(whole >= 1);
    assert_eq!(whole, again);
}

#[test]
fn a_dump_returns_the_kernel_s_error() {
    let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
    // This header is too short for RTM_GETLINK.
    let error = socket.dump(18, 0, &[0; 1]).expect_err("rejected");
    assert_eq!(error.errno, Errno::INVAL, "{error}");
}

/// A request that adds a blackhole route for one address, and fails if it exists.
fn blackhole(address: [u8; 4]) -> Message {
    // struct rtmsg (linux/rtnetlink.h): a /32 in table main, protocol 87, RTN_BLACKHOLE.
    let mut payload = vec![2, 32, 0, 0, 254, 87, 0, 6, 0, 0, 0, 0];
    put_attribute(&mut payload, 1, &address).expect("short");
    // NLM_F_CREATE | NLM_F_EXCL.
    Message { message_type: 24, flags: 0x600, payload }
}

#[test]
fn transact_reports_every_rejection_of_the_first_failing_send() {
    in_namespace(|| {
        let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
        let route = |number: u16| {
            let [high, low] = number.to_be_bytes();
            blackhole([10, 0, high, low])
        };
        let mut routes: Vec<_> = (0..1000).map(route).collect();
        socket.transact_all(&routes).expect("new routes");
        socket.transact_all(&[]).expect("nothing to do");

        // Send by send: 0..128, 128..256, 256..384.
        routes = (2000..2400).map(route).collect();
        for known in [255, 130, 129, 300] {
            routes[known] = route(7);
        }
        routes[255].payload.truncate(5);
        let refused = socket.transact_all(&routes).expect_err("known routes");
        assert_eq!(refused.failure, None);
        assert_eq!(refused.sent, 256);
        let seen: Vec<_> = refused.rejections.iter().map(|(at, error)| (*at, error.errno)).collect();
        assert_eq!(seen, [(129, Errno::EXIST), (130, Errno::EXIST), (255, Errno::INVAL)]);

        // The receive buffer fits the replies to a send whose requests are all rejected.
        let again: Vec<_> = (0..128).map(route).collect();
        assert_eq!(socket.transact_all(&again).expect_err("known routes").rejections.len(), 128);
        assert_eq!(
            socket.dump(26, 0, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).expect("routes").iter().count(),
            1253
        );
    });
}

#[test]
fn a_request_that_was_rejected_before_a_lost_reply_failed_once() {
    let rejections = vec![(1, KernelError::from(Errno::EXIST))];
    let refused = Refused { rejections, ..Refused::default() };
    assert_eq!(refused.clone().after(10, 3).failed(), [11]);
    let lost = Refused { failure: Some(KernelError::from(Errno::NOBUFS)), ..refused };
    assert_eq!(lost.after(10, 3).failed(), [10, 11, 12]);
}

#[test]
fn an_off_link_gateway_is_rejected_with_the_kernel_s_text() {
    in_namespace(|| {
        let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
        // RTN_UNICAST with RTA_GATEWAY.
        let mut route = blackhole([10, 0, 0, 1]);
        route.payload[7] = 1;
        put_attribute(&mut route.payload, 5, &[192, 0, 2, 1]).expect("short");
        let refused = socket.transact_all(&[route]).expect_err("an unreachable gateway");
        assert_eq!(refused.rejections[0].1.to_string(), "Nexthop has invalid gateway (ENETUNREACH)");
    });
}

#[test]
fn a_batch_without_messages_is_an_error() {
    let mut socket = Socket::open(NETLINK_ROUTE).expect("a socket");
    socket.batch(&mut []).expect_err("empty");
    socket.batch(&mut [1; 40]).expect_err("garbage");
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0u16..20,
        flags in any::<u16>(),
    ) {
        let received = Received { kind, flags, sequence: 0, port: 0, payload: &bytes };
        let _ = received.outcome();
        for message in Messages(&bytes).flatten() {
            let _ = message.outcome();
        }
        Attributes::new(&bytes).for_each(drop);
        let mut bytes = bytes;
        let _ = number(&mut bytes, 0, 0);
    }
}
