//! A token of this crate, and one of what applications use instead. None of those has a cache.

use std::hint::black_box;

use crate::Bench;
use crate::figure::{Figure, rounded};
use crate::measure::{median, seconds};
use crate::peers::{self, Peer};
use crate::token;

const NEW_CALLS: u32 = 2_000;
const CACHED_CALLS: u32 = 1_000_000;

pub(crate) fn run(bench: &Bench) {
    let calls = bench.pick("400", "4000");
    let [access_key, secret_key] = token::KEYS;
    let commands: Vec<_> = [
        Peer::Rust("tokens"),
        Peer::Python("tokens.py"),
        Peer::Node("tokens.mjs"),
    ]
    .iter()
    .filter_map(|peer| peer.command(bench))
    .map(|mut command| {
        command.arg(calls);
        command.env("AWS_ACCESS_KEY_ID", access_key);
        command.env("AWS_SECRET_ACCESS_KEY", secret_key);
        command.env("AWS_REGION", "eu-west-1");
        command.env("AWS_DEFAULT_REGION", "eu-west-1");
        command
    })
    .collect();

    let signer = token::Signer::new();
    let source = token::source();
    let each = |calls: u32, call: &dyn Fn()| {
        let spent = seconds(|| (0..calls).for_each(|_| call()));
        spent / f64::from(calls) * 1e9
    };
    // In turns, so that a machine that becomes slower or faster affects all alike.
    let mut cached = Vec::new();
    let mut others: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for mut command in commands {
        for _ in 0..bench.pick(1, 5) {
            let new = each(NEW_CALLS, &|| signer.sign());
            cached.push(each(CACHED_CALLS, &|| drop(black_box(source.token()))));
            let results = peers::results(&command.output().unwrap());
            for (name, value) in results.as_object().unwrap() {
                let turn = (new, value.as_f64().unwrap());
                match others.iter_mut().find(|(other, _)| other == name) {
                    Some((_, turns)) => turns.push(turn),
                    None => others.push((name.clone(), vec![turn])),
                }
            }
        }
    }
    let cached = median(cached);
    let others: Vec<(String, f64, f64)> = others
        .into_iter()
        .map(|(name, turns)| {
            let theirs = median(turns.iter().map(|(_, theirs)| *theirs));
            (name, median(turns.iter().map(|(new, _)| *new)), theirs)
        })
        .collect();
    for (name, new, theirs) in &others {
        let figure = Figure::new(
            &format!("token_peers_{}", name.replace(['@', '/'], "")),
            &format!("a new token, beside {name}"),
            "µs",
            new / 1e3,
        );
        let figure = figure.against(theirs / 1e3);
        let met = figure.number("ratio") <= 1.0;
        let figure = figure.target("≤ 1 ×", met);
        bench
            .results
            .add(figure.with("a repeated token, ns", rounded(cached)));
    }
    let fastest = others
        .iter()
        .map(|(.., theirs)| *theirs)
        .fold(f64::MAX, f64::min);
    let what = "a repeated token, beside the fastest of these, which sign each time";
    let figure = Figure::new("token_peers_repeated", what, "ns", cached).against(fastest);
    let met = figure.number("ratio") <= 0.01;
    bench.results.add(figure.target("≤ 0.01 ×", met));
}
