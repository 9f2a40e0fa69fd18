//! A request with a fresh token: the cost of the layer beside that of others.
//!
//! `cargo bench --bench hot_path`. All variants run in turns, round after round. The ratios are
//! medians of quotients within a round. `--threads 1,2,4` sets the numbers of threads; the default
//! is 1 and 2. Long-lived: each thread has a clone of the service for all its requests. Cloned:
//! `service.clone().oneshot(request)`. `footprint` counts the allocations, so that these times
//! include no counter.

mod support;

use support::{
    api::Api,
    check::check,
    client::Style,
    rounds::{Case, Effort, median, ratio, times},
    table::{Options, Tables},
    variants::{self, Claim, Load, Role, TOKEN, Variant},
};

fn main() {
    let options = Options::of_command_line();
    let effort = Effort::new(1001, 1000, options.quick);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    check(TOKEN, &runtime);
    let variants = variants::all(Api::default(), TOKEN, &runtime);
    let mut tables = Tables::default();
    for style in Style::ALL {
        for threads in options.threads([1, 2]) {
            let cases: Vec<_> = variants
                .iter()
                .map(|variant| case(variant, style))
                .collect();
            let times = times(&cases, threads, effort);
            report(&mut tables, style, threads, &variants, &times);
        }
    }
    tables.print(options);
}

fn case(variant: &Variant, style: Style) -> Case<'_> {
    Box::new(move || {
        let mut client = variant.client();
        Box::new(move |calls| client.run(calls, style))
    })
}

fn report(
    tables: &mut Tables,
    style: Style,
    threads: usize,
    variants: &[Variant],
    times: &[Vec<f64>],
) {
    let title = format!("A request with a fresh token, {} service", style.name());
    for (variant, of) in variants
        .iter()
        .zip(times)
        .filter(|(variant, _)| variant.is_shown())
    {
        let to = |role| &times[variant.baseline(role, variants)];
        let (raw, constant) = (to(Role::Raw), to(Role::Static));
        let above = median(of.iter().zip(raw).map(|(of, raw)| of - raw));
        let mut add = |what: &str, value| {
            tables.add(&title, variant.name, &format!("{what}, {threads}T"), value)
        };
        add("ns", format!("{:.0}", median(of.iter().copied())));
        add("above raw", format!("{above:.0}"));
        add("÷ AddAuthorization", format!("{:.2}", ratio(of, constant)));
    }

    // Two more comparisons: with another way to resend, and without the clock read.
    let title = format!(
        "The same POST, {} service, compared otherwise",
        style.name()
    );
    let times_of = |role| {
        let at = variants
            .iter()
            .position(|variant| (variant.role, variant.load) == (role, Load::Post));
        &times[at.expect("there is one")]
    };
    let (constant, clock, retry) = (
        times_of(Role::Static),
        times_of(Role::Clock),
        times_of(Role::Retry),
    );
    for (variant, of) in variants.iter().zip(times) {
        if (variant.role, variant.load) != (Role::Ours, Load::Post)
            || variant.claim == Claim::NoToken
        {
            continue;
        }
        let mut add = |what: &str, value| {
            tables.add(&title, variant.name, &format!("{what}, {threads}T"), value)
        };
        let rest = of
            .iter()
            .zip(clock)
            .zip(constant)
            .map(|((of, clock), constant)| of - (clock - constant));
        let rest = rest.collect::<Vec<_>>();
        add(
            "without a clock read ÷ AddAuthorization",
            format!("{:.2}", ratio(&rest, constant)),
        );
        if variant.claim == Claim::Replaced {
            add(
                "÷ tower::retry + AddAuthorization",
                format!("{:.2}", ratio(of, retry)),
            );
        }
    }
}
