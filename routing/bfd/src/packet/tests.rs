// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;

/// Up, no diagnostic, poll, multiplier 3, discriminators 1 and 2, 50 ms both ways, no echo.
const GOOD: [u8; LENGTH] =
    [0x20, 0xe0, 3, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50, 0, 0, 0, 0];

fn with(at: usize, value: u8) -> Result<Packet, PacketError> {
    let mut bytes = GOOD;
    bytes[at] = value;
    Packet::parse(&bytes)
}

#[test]
fn every_field_is_read_from_its_place() {
    let expected = Packet {
        diagnostic: Diagnostic::NONE,
        state: State::Up,
        poll: true,
        final_answer: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: NonZeroU8::new(3).expect("not 0"),
        my_discriminator: NonZeroU32::new(1).expect("not 0"),
        your_discriminator: 2,
        desired_min_tx: Duration::from_millis(50),
        required_min_rx: Duration::from_millis(50),
        required_min_echo_rx: Duration::ZERO,
    };
    assert_eq!(Packet::parse(&GOOD), Ok(expected));
    assert_eq!(expected.encode(), GOOD);
    assert!(with(1, 0xd0).expect("read").final_answer);
    assert!(with(1, 0xc8).expect("read").control_plane_independent);
    assert!(with(1, 0xc2).expect("read").demand);
    assert_eq!(with(0, 0x21).expect("read").diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
}

#[test]
fn each_check_of_the_rfc_refuses_its_packet() {
    assert_eq!(with(0, 0x00), Err(PacketError::Version(0)));
    assert_eq!(with(0, 0x40), Err(PacketError::Version(2)));
    assert_eq!(with(3, 23), Err(PacketError::Short));
    assert_eq!(with(3, 25), Err(PacketError::Length));
    assert_eq!(with(2, 0), Err(PacketError::DetectMultiplier));
    assert_eq!(with(1, 0xc1), Err(PacketError::Multipoint));
    assert_eq!(with(7, 0), Err(PacketError::MyDiscriminator));
    assert_eq!(with(11, 0), Err(PacketError::YourDiscriminator(State::Up)));
    assert_eq!(Packet::parse(&GOOD[..23]), Err(PacketError::Short));
    assert_eq!(Packet::parse(&[]), Err(PacketError::Short));
}

#[test]
fn without_our_discriminator_only_the_down_states_are_read() {
    for state in State::ALL {
        let mut bytes = GOOD;
        bytes[1] = state.code() << 6;
        bytes[11] = 0;
        let expected = matches!(state, State::AdminDown | State::Down);
        assert_eq!(Packet::parse(&bytes).is_ok(), expected, "{state}");
    }
}

#[test]
fn an_authenticated_packet_is_refused_by_name() {
    let mut bytes = [0; 28];
    bytes[..LENGTH].copy_from_slice(&GOOD);
    bytes[1] = 0xc4;
    assert_eq!(Packet::parse(&bytes), Err(PacketError::Short), "24 octets hold no authentication section");
    bytes[3] = 28;
    assert_eq!(Packet::parse(&bytes), Err(PacketError::Authentication));
}

#[test]
fn octets_behind_the_packet_are_passed_over() {
    let mut bytes = [0xff; 40];
    bytes[..LENGTH].copy_from_slice(&GOOD);
    assert_eq!(Packet::parse(&bytes), Packet::parse(&GOOD));
}

#[test]
fn an_interval_that_does_not_fit_is_the_longest_one() {
    let packet =
        Packet { desired_min_tx: Duration::from_secs(10_000), ..Packet::parse(&GOOD).expect("read") };
    let read = Packet::parse(&packet.encode()).expect("read");
    assert_eq!(read.desired_min_tx, Duration::from_micros(u64::from(u32::MAX)));
}

pub(crate) fn packets() -> impl Strategy<Value = Packet> {
    let interval = || any::<u32>().prop_map(|micros| Duration::from_micros(u64::from(micros)));
    let bits = any::<[bool; 4]>();
    let names = (any::<NonZeroU8>(), any::<NonZeroU32>(), any::<u32>());
    (0..32_u8, 0..4_usize, bits, names, interval(), interval(), interval()).prop_map(
        |(diagnostic, state, bits, names, tx, rx, echo)| {
            let state = State::ALL[state];
            let blind = matches!(state, State::AdminDown | State::Down);
            Packet {
                diagnostic: Diagnostic::from_code(diagnostic),
                state,
                poll: bits[0],
                final_answer: bits[1],
                control_plane_independent: bits[2],
                demand: bits[3],
                detect_multiplier: names.0,
                my_discriminator: names.1,
                your_discriminator: if blind { names.2 } else { names.2.max(1) },
                desired_min_tx: tx,
                required_min_rx: rx,
                required_min_echo_rx: echo,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_again(packet in packets()) {
        prop_assert_eq!(Packet::parse(&packet.encode()), Ok(packet));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert_eq!(&packet.encode()[..3], &bytes[..3]);
            prop_assert_eq!(&packet.encode()[4..], &bytes[4..LENGTH]);
        }
    }
}
