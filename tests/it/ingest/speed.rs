//! From XADD to the entry, and a burst.

use std::time::{Duration, Instant};

use purgewatch::ingest::{Publisher, StreamNews};

use super::{Following, LIMIT, pending};
use crate::support::redis::Redis;

/// Ten thousand entries at once: read in large steps and acknowledged in batches. The bound is a
/// tenth of what an unoptimised build does on a small machine under load.
#[tokio::test]
async fn a_burst_flows() {
    const ENTRIES: usize = 10_000;
    let redis = Redis::start_forgetful();
    let mut following = Following::new_group(&redis).await;
    redis.cli(&["EVAL", &format!("for n = 1, {ENTRIES} do redis.call('XADD', 'invalidations', '*', 'ban', 'obj.http.x-url == /' .. n) end"), "0"]);
    let start = Instant::now();
    let (mut news, mut seen) = (Vec::new(), 0);
    while seen < ENTRIES {
        news.clear();
        let got = tokio::time::timeout(LIMIT, following.reader.next_many(&mut news, 256)).await;
        assert!(got.unwrap() > 0);
        let ids = news.iter().map(|news| match news {
            StreamNews::Entry(entry) => entry.id,
            other => panic!("unexpected: {other:?}"),
        });
        seen += ids.len();
        following.handle.finish(ids);
    }
    following.written().await;
    let took = start.elapsed();
    assert_eq!(pending(&redis), 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn an_entry_comes_at_once() {
    let redis = Redis::start_forgetful();
    let mut following = Following::new_group(&redis).await;
    let mut publisher = Publisher::connect(redis.options()).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let start = Instant::now();
        publisher.publish("invalidations", &[(b"ban", b"a")], 1_000).await.unwrap();
        let added = start.elapsed();
        let id = following.entry().await.id;
        took.push((start.elapsed(), added));
        following.handle.finish([id]);
    }
    took.sort();
    let (median, added) = took[took.len() / 2];
    assert!(median < Duration::from_millis(5), "{median:?}, of which XADD took {added:?}");
}
