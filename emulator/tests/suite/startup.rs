//! Start-up packets that the emulator and PostgreSQL must read alike. A difference would verify the token of one
//! user and open the session of another, which SECURITY.md counts as a vulnerability.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rds_iam_emulator::Emulator;

use crate::client::Token;
use crate::raw::{Dialer, log_in};

/// Runs more packets, or others: `RDS_IAM_EMULATOR_PACKETS=5000`, `RDS_IAM_EMULATOR_SEED=7`.
const PACKETS: (&str, u64) = ("RDS_IAM_EMULATOR_PACKETS", 80);
const SEED: (&str, u64) = ("RDS_IAM_EMULATOR_SEED", 2);

/// The superuser of the upstream.
const BOSS: &str = "boss";

/// Sends each packet to PostgreSQL itself, which trusts users of `rds_iam` on its socket, and with a token of one
/// of them to an emulator with a PostgreSQL of its own and to one in front of it.
#[test]
fn a_session_is_that_of_the_user_whom_postgresql_reads() {
    let own = Emulator::builder().start().unwrap();
    let statement = format!("CREATE ROLE {BOSS} SUPERUSER LOGIN PASSWORD 'right'");
    own.execute(&statement).unwrap();
    let socket = own.superuser_url();
    let upstream = socket.replace("user=rdsadmin", &format!("user={BOSS} password=right"));
    let front = Emulator::builder().upstream(upstream).start().unwrap();
    let names = users();
    own.create_iam_user(&names[0]).unwrap();
    for name in &names[1..] {
        let grants = format!("CREATE ROLE \"{name}\" LOGIN; GRANT rds_iam TO \"{name}\"");
        own.execute(&grants).unwrap();
    }
    let (folder, _) = socket["host='".len()..].split_once('\'').unwrap();
    let socket = Path::new(folder).join(".s.PGSQL.5432");

    let [count, seed] = [PACKETS, SEED].map(|(variable, default)| {
        let value = std::env::var(variable).ok();
        value.map_or(default, |value| value.parse().unwrap())
    });
    let emulators = [&own, &front].map(|emulator| (emulator, Dialer::new(emulator)));
    let mut random = Random(seed);
    let (mut opened, mut refused) = (0, 0);
    for number in 0..count {
        let packet = packet(&mut random, &names);
        let direct = UnixStream::connect(&socket).unwrap();
        direct
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let read = log_in(direct, &packet, None);
        // Half of the tokens are those of the user whom PostgreSQL reads.
        let signer = match &read {
            Some([user, _]) if names.contains(user) && random.below(2) == 0 => user.clone(),
            _ => random.pick(&names).clone(),
        };
        // A token of another user must not open the session.
        let expected = read.filter(|[session_user, _]| *session_user == signer);
        for (emulator, dialer) in &emulators {
            let token = Token::new(emulator, &signer).sign();
            let got = log_in(dialer.encrypted(), &packet, Some(&token));
            assert_eq!(
                got,
                expected,
                "packet {number} of seed {seed}, with a token of {signer}: {}",
                packet.escape_ascii()
            );
        }
        match expected {
            Some(_) => opened += 1,
            None => refused += 1,
        }
    }
    println!("{count} packets: {opened} open a session, {refused} do not");
    assert!(opened * 20 >= count, "too few sessions: {opened}");
    assert!(refused * 20 >= count, "too few refusals: {refused}");
}

/// Users of `rds_iam`, also with names of the maximum length.
fn users() -> [String; 4] {
    [
        "app".to_owned(),
        "other".to_owned(),
        "x".repeat(63),
        "é".repeat(31) + "y",
    ]
}

/// A start-up packet without its length.
fn packet(random: &mut Random, users: &[String]) -> Vec<u8> {
    let mut parameters = Vec::new();
    let users_in_packet = *random.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3, 0]);
    for _ in 0..users_in_packet {
        parameters.push((b"user".to_vec(), user(random, users)));
    }
    for _ in 0..*random.pick(&[1, 1, 1, 1, 2, 0]) {
        let name: &[u8] = match random.below(16) {
            0 => b"",
            1 => b"none",
            2 => b"\xff",
            _ => b"postgres",
        };
        parameters.push((b"database".to_vec(), name.to_vec()));
    }
    for _ in 0..*random.pick(&[0, 0, 0, 1, 2]) {
        let others: [(&[u8], &[u8]); 14] = [
            (b"application_name", b"\xff\xfe"),
            (b"client_encoding", b"LATIN1"),
            (b"client_encoding", b"none"),
            (b"options", b"-c role=other"),
            (b"options", b"-c session_authorization=other"),
            (b"options", b"--search_path=a -c application_name=b"),
            (b"application_name", b"user"),
            (b"role", b"app"),
            (b"session_authorization", b"other"),
            (b"replication", b"database"),
            (b"User", b"other"),
            (b"user ", b"other"),
            (b"_pq_.user", b"other"),
            (b"database", b"postgres"),
        ];
        let (name, value) = random.pick(&others);
        parameters.push((name.to_vec(), value.to_vec()));
    }
    random.shuffle(&mut parameters);

    let versions = [[0, 3, 0, 0], [0, 3, 0, 0], [0, 3, 0, 0], [0, 3, 0, 2]];
    let mut packet = random.pick(&versions).to_vec();
    for (name, value) in parameters {
        packet.extend([name, b"\0".to_vec(), value, b"\0".to_vec()].concat());
    }
    packet.push(0);
    // One in four is damaged.
    match random.below(24) {
        0 => drop(packet.pop()),
        1 => packet.extend(b"user\0other\0\0"),
        2 => {
            let place = 4 + random.below(packet.len() - 4);
            packet.truncate(place);
        }
        3 => {
            let place = 4 + random.below(packet.len() - 4);
            packet[place] = 0;
        }
        4 => {
            let place = 4 + random.below(packet.len() - 4);
            packet[place] = *random.pick(&[0xff, b' ', b'u', b'"']);
        }
        5 => {
            let place = 4 + random.below(packet.len() - 4);
            packet.insert(place, 0);
        }
        _ => {}
    }
    packet
}

/// The name of a user, or something like it.
fn user(random: &mut Random, users: &[String]) -> Vec<u8> {
    let name = random.pick(users).clone().into_bytes();
    let changed: &[u8] = match random.below(24) {
        0 | 1 => b"\xff",
        2 | 3 => b"\xc3\xa9",
        9 => b" ",
        10 => b"xx",
        4 => return name.to_ascii_uppercase(),
        5 => return b"rdsadmin".to_vec(),
        6 => return BOSS.into(),
        7 => return Vec::new(),
        8 => return [b"\"", name.as_slice(), b"\""].concat(),
        _ => b"",
    };
    [&name, changed].concat()
}

/// SplitMix64: the same numbers on each machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}
