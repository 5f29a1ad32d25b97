//! The incident, step by step, with what the daemon exports at each.

use std::io::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::super::Exit;
use super::super::output::Untrusted;
use super::server::get;
use super::stage::{HOST, PATH, Stage, StageError};
use crate::clock::Clock;
use crate::model::Timestamp;

/// How long each turn of the story may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Prints the time line.
#[derive(Debug)]
pub(super) struct Teller {
    clock: Clock,
    began: Timestamp,
    colour: bool,
    live: bool,
}

impl Teller {
    pub(super) fn new(colour: bool, live: bool) -> Self {
        let clock = Clock::start();
        Self { clock, began: clock.now(), colour, live }
    }

    fn say(&self, mark: Mark, text: &str) {
        let seconds = self.clock.now().since(self.began).as_secs_f64();
        let (symbol, code) = match mark {
            Mark::Scene => ("*", "1"),
            Mark::Good => ("+", "32"),
            Mark::Bad => ("!", "31;1"),
            Mark::Plain => (" ", "0"),
        };
        let clear = if self.live { "\r\u{1b}[K" } else { "" };
        let line = if self.colour && code != "0" {
            format!("{clear}{seconds:5.1} s \u{1b}[{code}m{symbol} {text}\u{1b}[0m")
        } else {
            format!("{clear}{seconds:5.1} s {symbol} {text}")
        };
        // A reader that went away does not stop the story: everything is still cleared up.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// A line that the next one overwrites, on a terminal; elsewhere a line like the others.
    fn passing(&self, text: &str) {
        if !self.live {
            return self.say(Mark::Plain, text);
        }
        let seconds = self.clock.now().since(self.began).as_secs_f64();
        let mut out = std::io::stdout();
        let _ = write!(out, "\r\u{1b}[K{seconds:5.1} s   {text}");
        let _ = out.flush();
    }
}

#[derive(Debug, Clone, Copy)]
enum Mark {
    Scene,
    Good,
    Bad,
    Plain,
}

/// Plays the incident and its end.
pub(super) async fn tell(stage: &Stage, teller: &mut Teller) -> Result<Exit, StageError> {
    let teller = &*teller;
    let directory = stage.directory().display();
    teller.say(Mark::Scene, &format!("varnishd, an origin and purgewatch are up ({directory})"));
    show_content(stage, teller).await?;
    until(stage, teller, "the daemon finds it fresh", |seen| {
        seen.state == "fresh" && seen.admin_up
    })
    .await?;
    teller
        .say(Mark::Good, "fresh: the cache serves what the origin serves; the admin port answers");

    teller.say(Mark::Scene, "a network filter now blocks the way to the admin port");
    stage.network.set_blocked(true);
    until(stage, teller, "the daemon notices", |seen| !seen.admin_up).await?;
    teller.say(Mark::Bad, "node_admin_up 0: noticed although no content has changed yet");

    stage.origin.deploy();
    teller.say(Mark::Scene, "a deployment: the origin serves version 2; the pipeline sends a ban");
    ban(stage, teller).await?;
    teller.say(Mark::Bad, "exit status 3. A pipeline that ignores it goes on, \"successful\"");
    show_content(stage, teller).await?;
    until(stage, teller, "the alarm", |seen| seen.state == "stale").await?;
    teller.say(Mark::Bad, "stale: the alarm state is reached (max_stale is 5 s in this demo)");

    let corrected = "the filter is corrected: the daemon delivers the ban that the node missed";
    teller.say(Mark::Scene, corrected);
    stage.network.set_blocked(false);
    until(stage, teller, "the admin port is back", |seen| seen.admin_up).await?;
    until(stage, teller, "fresh again", |seen| seen.state == "fresh").await?;
    show_content(stage, teller).await?;
    teller.say(Mark::Good, "fresh again: staleness 0 s. Everything is stopped and removed now");
    Ok(Exit::Done)
}

/// Sends the deployment's ban as a pipeline would, and shows what came of it.
async fn ban(stage: &Stage, teller: &Teller) -> Result<(), StageError> {
    let config = stage.config.display().to_string();
    let url = format!("http://{HOST}{PATH}");
    teller.say(Mark::Plain, &format!("$ purgewatch ban --timeout 2s --url {url}"));
    let arguments = ["ban", "-c", &config, "--timeout", "2s", "--url", &url];
    let (code, said) = stage.purgewatch(&arguments).await?;
    for line in said.lines() {
        teller.say(Mark::Plain, &format!("  {}", Untrusted(line)));
    }
    teller.say(Mark::Plain, &format!("  exit status {code}"));
    match code {
        3 => Ok(()),
        other => Err(StageError::Story(format!("the ban ended with status {other}, not 3"))),
    }
}

async fn show_content(stage: &Stage, teller: &Teller) -> Result<(), StageError> {
    let Some((headers, body)) = get(stage.cache, HOST, PATH).await else {
        return Err(StageError::Story("the cache does not answer".to_owned()));
    };
    let ids = headers.get("x-varnish").and_then(|ids| ids.to_str().ok()).unwrap_or_default();
    let how = if ids.contains(' ') { "a hit" } else { "a miss" };
    let text = format!("the cache serves {} ({how})", Untrusted(body.trim()));
    teller.say(Mark::Plain, &text);
    Ok(())
}

/// What the daemon exports.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    state: String,
    staleness: Option<f64>,
    admin_up: bool,
}

/// Watches the daemon's metrics until they show what is waited for.
async fn until(
    stage: &Stage,
    teller: &Teller,
    what: &str,
    wanted: impl Fn(&Seen) -> bool,
) -> Result<(), StageError> {
    let mut last = String::new();
    let found = timeout(PATIENCE, async {
        let mut next = Instant::now();
        loop {
            if let Some((_, text)) = get(stage.metrics, HOST, "/metrics").await {
                let seen = read(&text);
                if wanted(&seen) {
                    return;
                }
                let staleness = seen.staleness.map_or("-".to_owned(), |s| format!("{s:.0} s"));
                let line = format!("  staleness {staleness}, state {}", seen.state);
                if line != last {
                    teller.passing(&line);
                    last = line;
                }
            }
            next += Duration::from_millis(200);
            sleep(next.saturating_duration_since(Instant::now())).await;
        }
    });
    found.await.map_err(|_| StageError::Story(format!("not seen within 20 s: {what}")))
}

fn read(metrics: &str) -> Seen {
    let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
    let mut seen = Seen::default();
    for line in metrics.lines() {
        if line.starts_with("purgewatch_endpoint_staleness_seconds{") {
            seen.staleness = value(line);
        } else if line.starts_with("purgewatch_endpoint_state{") && value(line) == Some(1.0) {
            let label = line.split("state=\"").nth(1).and_then(|rest| rest.split('"').next());
            seen.state = label.unwrap_or_default().to_owned();
        } else if line.starts_with("purgewatch_node_admin_up{") {
            seen.admin_up = value(line) == Some(1.0);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_are_read() {
        let seen = read(
            "# TYPE purgewatch_endpoint_state gauge\n\
             purgewatch_endpoint_staleness_seconds{endpoint=\"a\",node=\"n\"} 4.5\n\
             purgewatch_endpoint_state{endpoint=\"a\",state=\"fresh\"} 0\n\
             purgewatch_endpoint_state{endpoint=\"a\",state=\"stale\"} 1\n\
             purgewatch_node_admin_up{node=\"n\"} 1\n",
        );
        let wanted = Seen { state: "stale".into(), staleness: Some(4.5), admin_up: true };
        assert_eq!(seen, wanted);
    }
}
