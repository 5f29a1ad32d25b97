//! Pub/Sub: templates, hostile values, and gaps.

use super::{PATH, Stage, cacheable, until};

const MODELS: &str = "[[subscription]]\nchannel = \"invalidate:model:*\"\n\
                      ban = \"obj.http.x-model == {1}\"\nverify = [\"rec\"]\n";
const NAME: &str = "invalidate:model:*";

fn publish(stage: &Stage, channel: &str, payload: &str) {
    assert_eq!(stage.redis.cli(&["PUBLISH", channel, payload]), "1");
}

#[test]
fn a_message_is_a_ban_by_its_template() {
    let stage = Stage::set(MODELS);
    stage.wait_for_up(NAME);
    stage.origin.serve(PATH, cacheable("two"));
    publish(&stage, "invalidate:model:one", "anything");
    until("the object is gone", || stage.bans("obj.http.x-model == one").len() == 1);
    assert_eq!(stage.body(), "two");
    stage.daemon.wait("it is counted", || stage.results(NAME, "taken") == Some(1.0));
}

#[test]
fn a_value_can_never_add_a_condition() {
    let more = "[[subscription]]\nchannel = \"by:json\"\n\
                ban = \"obj.http.x-model ~ ^{json:/model}$\"\n";
    let stage = Stage::set(&format!("{MODELS}{more}"));
    stage.wait_for_up(NAME);
    let begin = stage.varnishd.bans().len();
    let hostile = [
        "\" && obj.status == 200",
        "x && obj.status == 200",
        "a\nvcl.use boot",
        "a\rban obj.status == 200",
        "a b",
        "",
    ];
    for value in hostile {
        publish(&stage, &format!("invalidate:model:{value}"), "");
    }
    stage
        .daemon
        .wait("each is refused", || stage.results(NAME, "refused") == Some(hostile.len() as f64));
    assert_eq!(stage.varnishd.bans().len(), begin);
    assert_eq!(stage.body(), "one");
    // In a regex it stands for itself.
    publish(&stage, "by:json", r#"{"model": ".*"}"#);
    publish(&stage, "by:json", r#"{"model": "on."}"#);
    publish(&stage, "by:json", "no json");
    stage.daemon.wait("they are dealt with", || {
        stage.results("by:json", "taken") == Some(2.0)
            && stage.results("by:json", "refused") == Some(1.0)
    });
    let hit = stage.varnishd.get(super::HOST, PATH);
    assert!(hit.contains("X-Model: one") && hit.contains("Age: "), "{hit}");
    let ids = hit.lines().find_map(|line| line.strip_prefix("X-Varnish: ")).unwrap();
    assert_eq!(ids.split_whitespace().count(), 2, "still the cached object: {hit}");
}

#[test]
fn a_gap_is_counted_and_answered_with_a_look() {
    let mut stage = Stage::set(&format!("[defaults2]\n{MODELS}").replace("[defaults2]\n", ""));
    stage.wait_for_up(NAME);
    let label = [format!("subscription=\"{NAME}\"")];
    let gaps = || stage.daemon.metric("purgewatch_subscription_gaps_total", &[&label[0]]);
    assert_eq!(gaps(), Some(0.0));
    stage.redis.kill();
    stage.redis.start_again();
    stage.daemon.wait("the gap is counted", || {
        stage.daemon.metric("purgewatch_subscription_gaps_total", &[&label[0]]) == Some(1.0)
    });
    stage.wait_for_up(NAME);
    publish(&stage, "invalidate:model:one", "");
    until("it works again", || stage.bans("obj.http.x-model == one").len() == 1);
}

#[test]
fn a_gap_can_be_answered_with_a_ban() {
    let further = MODELS
        .replace("obj.http.x-model ==", "obj.http.x-model ~ ^o && obj.http.x-model ==")
        + "on_gap = \"ban\"\n";
    let mut stage = Stage::set(&further);
    stage.wait_for_up(NAME);
    // Also what was published before the daemon listened may have been lost.
    until("the scope is banned", || !stage.bans("obj.http.x-model ~ ^o").is_empty());
    let before = stage.taken();
    stage.redis.kill();
    stage.redis.start_again();
    until("it is banned again", || stage.taken() > before);
}

#[test]
fn a_long_message_is_a_gap_of_its_own_channel_alone() {
    let other = "[[subscription]]\nchannel = \"other\"\nban = \"obj.http.x-other == {payload}\"\n\
                 on_gap = \"ban\"\n";
    let stage = Stage::set(&format!("{MODELS}{other}"));
    stage.wait_for_up("other");
    let gaps = |name: &str| {
        let label = format!("subscription=\"{name}\"");
        stage.daemon.metric("purgewatch_subscription_gaps_total", &[&label])
    };
    // Of the start.
    stage.daemon.wait("its scope is banned", || stage.taken() == 1.0);
    let long = "redis.call('PUBLISH', 'invalidate:model:one', string.rep('x', 300000))";
    stage.redis.cli(&["EVAL", long, "0"]);
    stage.daemon.wait("the gap is counted", || gaps(NAME) == Some(1.0));
    publish(&stage, "other", "after");
    stage.daemon.wait("what came behind it is taken", || stage.taken() >= 2.0);
    assert_eq!((gaps("other"), stage.taken()), (Some(1.0), 2.0));
}

/// While a new configuration is taken over nobody listens: that is a gap as well.
#[test]
fn a_reload_that_subscribes_anew_is_a_gap() {
    let stage = Stage::set(MODELS);
    stage.wait_for_up(NAME);
    let gaps = || {
        let label = format!("subscription=\"{NAME}\"");
        stage.daemon.metric("purgewatch_subscription_gaps_total", &[&label])
    };
    assert_eq!(gaps(), Some(0.0));
    assert!(stage.reload(&format!("{MODELS}debounce = \"200ms\"\n")));
    stage.daemon.wait("the gap is counted", || gaps() == Some(1.0));
    assert!(stage.daemon.log().contains("messages may have been lost"));
}
