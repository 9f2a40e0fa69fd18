//! Puts klavi-auth and its peers into the situations that a user fears, and counts.
//!
//! `compare/run` runs all and writes `RESULTS.md`, `chart.svg` and `chart.txt`. A part of a peer's
//! name, and a part of a situation's, run only these and print why each request failed.

mod clock;
mod load;
mod oracle;
mod peers;
mod report;
mod situations;
mod wire;
mod world;

use std::{env, panic};

use peers::Peer;
use report::Cell;
use situations::Situation;
use tokio::runtime::Builder;

fn main() -> std::io::Result<()> {
    // google-cloud-auth wants one, although everything here is plain http.
    let provider = rustls::crypto::ring::default_provider();
    provider
        .install_default()
        .expect("nothing else installs one");
    silence_the_simulated_panic();

    let (peers, situations) = (peers::all(), situations::all());
    let filters: Vec<_> = env::args().skip(1).collect();
    let is_chosen =
        |position: usize, name: &str| filters.get(position).is_none_or(|part| name.contains(part));
    let mut cells = Vec::new();
    for situation in situations
        .iter()
        .filter(|situation| is_chosen(1, situation.name))
    {
        for peer in peers.iter().filter(|peer| is_chosen(0, peer.name)) {
            let runs: Option<Vec<_>> = (0..situation.runs).map(|_| run(peer, situation)).collect();
            let cell = runs.map(|runs| report::Cell::mean(&runs));
            eprintln!(
                "{:<32} {:<18} {}",
                situation.name,
                peer.name,
                report::line(cell.as_ref())
            );
            cells.push(cell);
        }
    }
    if filters.is_empty() {
        report::write(&peers, &situations, &cells)?;
    }
    Ok(())
}

/// One peer in one situation. `None` if it cannot be asked.
fn run(peer: &Peer, situation: &Situation) -> Option<Cell> {
    if situation.script.panics && peer.no_panic.is_some() {
        return None;
    }
    // One thread and a paused clock: time passes when all tasks wait.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let _following = clock::follow();
        let world = world::World::new(situation.script.clone());
        let wire = wire::Wire::start(&world).await;
        let client = (peer.start)(world.clone(), wire).await;
        let sent = load::send(&world, &client, &situation.calls).await;
        let failed = sent.iter().filter(|sent| oracle::failed(sent)).count();
        let need_not_have = sent
            .iter()
            .filter(|sent| oracle::need_not_have(&world, sent));
        let needless = need_not_have
            .inspect(|sent| verbose(|| format!("{sent:?}")))
            .count();
        let state = world.state();
        Some(Cell {
            needless,
            failed,
            token_calls: state.token_calls,
            leaked: state.leaked,
        })
    })
}

/// Prints, if only some peers and situations run.
fn verbose(text: impl FnOnce() -> String) {
    if env::args().len() > 2 {
        eprintln!("  {}", text());
    }
}

/// Panics of the simulation are no news. All others are.
fn silence_the_simulated_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(world::PANIC) {
            report(info);
        }
    }));
}
