//! Any bytes as a client's messages to the emulator before its login: no panic, no length that PostgreSQL would
//! reject, and the same result as for packets of another implementation.

#![no_main]

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use libfuzzer_sys::fuzz_target;
use postgres_protocol::message::{backend, frontend};
use rds_iam_emulator::packet::{self, Initial, Malformed, Startup};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<4>() {
        let Ok(length) = packet::startup_length(*header) else {
            break;
        };
        assert!((4..=packet::MAXIMUM_STARTUP).contains(&length));
        let Some((body, after)) = after.split_at_checked(length) else {
            break;
        };
        match packet::parse_initial(body) {
            // Inside TLS neither may be requested again.
            Ok(Initial::Tls | Initial::Gss) => {
                assert_told(packet::unsupported(&rest[..4 + length]));
                rest = after;
            }
            Ok(Initial::Cancel) => break,
            Ok(Initial::Startup(startup)) => {
                assert_written_again(&startup);
                read_password(after);
                break;
            }
            Err(malformed) => {
                assert_told(malformed);
                break;
            }
        }
    }
});

fn read_password(bytes: &[u8]) {
    let Some((header, after)) = bytes.split_first_chunk::<5>() else {
        return;
    };
    let length = match packet::password_length(*header) {
        Ok(length) => length,
        Err(malformed) => return assert_told(malformed),
    };
    assert!(length <= packet::MAXIMUM_PASSWORD);
    let Some((body, _)) = after.split_at_checked(length) else {
        return;
    };
    match packet::parse_password(body) {
        Ok(password) => {
            let mut written = BytesMut::new();
            frontend::password_message(password, &mut written).expect("no zero byte is in it");
            assert_eq!(written, [header.as_slice(), body].concat());
        }
        Err(malformed) => assert_told(malformed),
    }
}

/// A parsed packet, written by another implementation, is parsed to the same result.
fn assert_written_again(startup: &Startup) {
    let read = [&startup.user, &startup.database].map(|name| std::str::from_utf8(name));
    let [Ok(user), Ok(database)] = read else {
        return;
    };
    let mut pairs = vec![("user", user), ("database", database)];
    if startup.has_options {
        pairs.push(("options", "-c a=b"));
    }
    let mut written = BytesMut::new();
    frontend::startup_message(pairs, &mut written).expect("no zero byte is in it");
    let read = packet::parse_initial(&written[4..]);
    assert_eq!(read, Ok(Initial::Startup(startup.clone())));
}

/// The emulator's response is an error that another implementation can parse.
fn assert_told(malformed: Malformed) {
    let Malformed::Answer(sqlstate, message) = malformed else {
        return;
    };
    let mut told = BytesMut::from(&*packet::fatal("FATAL", sqlstate, &message, "routine"));
    let read = backend::Message::parse(&mut told).expect("a message");
    let Some(backend::Message::ErrorResponse(body)) = read else {
        panic!("not an error");
    };
    let fields = body
        .fields()
        .map(|field| Ok((field.type_(), field.value_bytes().to_vec())));
    let fields: Vec<_> = fields.collect().expect("fields");
    assert!(fields.contains(&(b'C', sqlstate.into())));
    assert!(fields.contains(&(b'M', message.into())));
    assert!(told.is_empty());
}
