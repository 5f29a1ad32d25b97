//! From what came by to what is to be done at the nodes.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::super::Driver;
use super::super::journal::chain;
use super::meaning::Nothing;
use super::{Events, HTTP, HTTP_DEBOUNCE, Origin, Subscribed, Work};
use crate::config::{EventSource, OnGap};
use crate::event::{Event, Message};
use crate::expose::{EventResult, HandedIn, Refused, Taken};
use crate::ingest::{self, PubSubNews, SilenceCause, StreamNews};
use crate::model::Untrusted;
use crate::store::Store;

impl Events {
    /// What is to be done about news of a stream.
    pub(super) fn of_stream(
        &mut self,
        subscribed: &Arc<Subscribed>,
        news: StreamNews,
    ) -> Option<Work> {
        let name = &subscribed.name;
        match news {
            StreamNews::Entry(entry) => return self.of_entry(subscribed, &entry),
            StreamNews::Oversize { id, bytes } => {
                let origin = Origin::Stream(subscribed.clone(), id);
                let size = bytes.map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string());
                let why = format!("the entry has {size} bytes, more than are read");
                // The reader sets it aside itself.
                self.refused(&origin, &id.to_string(), &why);
                self.tally(name, |state| state.set_aside += 1);
            }
            StreamNews::Gap { lost, cause } => {
                self.tally(name, |state| {
                    state.gaps += 1;
                    state.lost = state.lost.saturating_add(lost.unwrap_or(0));
                });
                let lost = lost.map_or_else(
                    || "entries".to_owned(),
                    |lost| match lost {
                        1 => "1 entry".to_owned(),
                        _ => format!("{lost} entries"),
                    },
                );
                let cause = cause.label();
                error!("{name}: {lost} gone before they were read ({cause})");
                return self.gap(subscribed);
            }
            StreamNews::Up { group } => {
                self.set_up(name, true);
                match group {
                    ingest::GroupStart::New => info!(
                        "{name}: followed as {} from now on; what was there before is not read",
                        self.host
                    ),
                    ingest::GroupStart::Resumed(id) => {
                        info!("{name}: followed as {}, behind {id}", self.host);
                    }
                }
            }
            StreamNews::Down(fault) => self.down(name, &fault),
            StreamNews::Refused(fault) => {
                if self.quiet.may_speak(self.clock.now()) {
                    warn!("{name}: {}", chain(&fault));
                }
            }
            StreamNews::OtherInstance { instance, is_copy } => {
                let remedy = if is_copy {
                    "it has a copy of this one's state directory, as a cloned machine has, or the \
                     same: it needs another name ([redis] name) and a state directory of its own"
                } else {
                    "one of the two needs another name ([redis] name)"
                };
                let problem = format!(
                    "another daemon follows it as {}, too (instance {}): {remedy}; nothing is read \
                     here until then",
                    self.host,
                    Untrusted(&instance)
                );
                if self.set_up(name, false) || self.quiet.may_speak(self.clock.now()) {
                    error!(subscription = &**name, "{name}: {problem}");
                }
                self.tally(name, |state| state.problem = Some(problem));
            }
        }
        None
    }

    fn of_entry(&mut self, subscribed: &Arc<Subscribed>, entry: &ingest::Entry) -> Option<Work> {
        let received = self.came(&subscribed.name);
        let origin = Origin::Stream(subscribed.clone(), entry.id);
        let id = entry.id.to_string();
        let fields = entry.fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let settings = &subscribed.settings;
        let meaning = match Event::from_fields(fields) {
            Ok(event) => self.reader.event(&event, &settings.verify, settings.prove),
            Err(fault) => Err(Nothing::Refused(chain(&fault))),
        };
        let meaning = match meaning {
            Ok(meaning) => meaning,
            Err(Nothing::Elsewhere) => {
                self.count(&origin, EventResult::Elsewhere);
                if let Some(handle) = &subscribed.handle {
                    handle.finish([entry.id]);
                }
                return None;
            }
            Err(Nothing::Refused(why)) => {
                self.refused(&origin, &id, &why);
                if let Some(handle) = &subscribed.handle {
                    self.set_aside(subscribed, handle, entry.id, &why);
                }
                return None;
            }
        };
        let debounce = settings.debounce;
        Some(Work { origin, event: id, meaning, debounce, received, failures: 0, put_off: 0 })
    }

    /// What is to be done about news of the channels.
    pub(super) fn of_channel(&mut self, news: PubSubNews) -> Vec<Work> {
        let topics: Vec<_> =
            self.sources.topics.iter().filter_map(|at| self.subscribed.get(*at).cloned()).collect();
        match news {
            PubSubNews::Message(message) => {
                let places = message.topics.iter().filter_map(|at| topics.get(*at).cloned());
                let concerned: Vec<_> = places.collect();
                let each = concerned.into_iter();
                each.filter_map(|it| self.of_message(&it, &message.channel, &message.payload))
                    .collect()
            }
            PubSubNews::Gap { cause, topics: concerned, .. } => {
                let mut topics: Vec<_> =
                    concerned.into_iter().filter_map(|at| topics.get(at).cloned()).collect();
                if cause == SilenceCause::Started && !self.was_replaced {
                    // The daemon looks at everything anyway when it starts.
                    topics.retain(|it| it.settings.on_gap == OnGap::Ban);
                }
                for subscribed in &topics {
                    let lost = match cause {
                        SilenceCause::Overflow { messages } => messages,
                        SilenceCause::Started | SilenceCause::Disconnected => 0,
                    };
                    self.tally(&subscribed.name, |state| {
                        state.gaps += 1;
                        state.lost = state.lost.saturating_add(lost);
                    });
                    let (name, cause) = (&subscribed.name, cause.label());
                    warn!("{name}: messages may have been lost ({cause})");
                }
                topics.iter().filter_map(|subscribed| self.gap(subscribed)).collect()
            }
            PubSubNews::Up => {
                for subscribed in &topics {
                    if self.set_up(&subscribed.name, true) {
                        info!("{}: subscribed", subscribed.name);
                    }
                }
                Vec::new()
            }
            PubSubNews::Down(fault) => {
                for subscribed in &topics {
                    self.down(&subscribed.name, &fault);
                }
                Vec::new()
            }
        }
    }

    fn of_message(
        &mut self,
        subscribed: &Arc<Subscribed>,
        channel: &[u8],
        payload: &[u8],
    ) -> Option<Work> {
        let settings = &subscribed.settings;
        let EventSource::Channel(pattern) = &settings.source else { return None };
        let message = Message::new(pattern, channel, payload)?;
        let received = self.came(&subscribed.name);
        let origin = Origin::Channel(subscribed.clone());
        let meaning = if settings.carries_events() {
            match Event::from_json(payload) {
                Ok(event) => self.reader.event(&event, &settings.verify, settings.prove),
                Err(fault) => Err(Nothing::Refused(chain(&fault))),
            }
        } else {
            self.reader.message(&message, settings)
        };
        let event = String::from_utf8_lossy(channel).into_owned();
        match meaning {
            Ok(meaning) => {
                let debounce = settings.debounce;
                Some(Work { origin, event, meaning, debounce, received, failures: 0, put_off: 0 })
            }
            Err(Nothing::Elsewhere) => {
                self.count(&origin, EventResult::Elsewhere);
                None
            }
            Err(Nothing::Refused(why)) => {
                self.refused(&origin, &event, &why);
                None
            }
        }
    }

    pub(super) fn of_http(&mut self, handed_in: HandedIn, driver: &mut Driver, store: &Store) {
        let HandedIn { event, ticket, reply } = handed_in;
        let received = self.came(HTTP);
        let (settled, receiver) = watch::channel(None);
        let origin = Origin::Http(settled);
        let meaning = match self.reader.event(&event, &[], None) {
            Ok(meaning) => meaning,
            Err(nothing) => {
                let (result, why) = match nothing {
                    Nothing::Refused(why) => (EventResult::Refused, why),
                    Nothing::Elsewhere => {
                        let why = "none of the nodes that it names is one of this host's";
                        (EventResult::Elsewhere, why.to_owned())
                    }
                };
                self.count(&origin, result);
                return drop(reply.send(Err(Refused::Event(why))));
            }
        };
        let debounce = HTTP_DEBOUNCE;
        let work =
            Work { origin, event: ticket, meaning, debounce, received, failures: 0, put_off: 0 };
        let key = self.key();
        let invalidation = work.invalidation(key);
        match driver.invalidate(vec![invalidation]).pop() {
            Some(Ok(())) => {}
            Some(Err(fault)) if fault.is_final() => {
                self.count(&work.origin, EventResult::Refused);
                return drop(reply.send(Err(Refused::Event(chain(&fault)))));
            }
            Some(Err(_)) | None => {
                self.count(&work.origin, EventResult::Lost);
                return drop(reply.send(Err(Refused::Full)));
            }
        }
        self.open.insert(key, work);
        let (tell, stored) = oneshot::channel();
        store.save_durably(driver.take_records(), move |is_stored| {
            let _ = tell.send(is_stored);
        });
        // Whoever asked may have gone meanwhile; it is done all the same.
        drop(reply.send(Ok(Taken { stored, settled: receiver })));
    }

    /// What is to be done where events of a subscription may have been lost.
    pub(super) fn gap(&mut self, subscribed: &Arc<Subscribed>) -> Option<Work> {
        let settings = &subscribed.settings;
        let meaning = match settings.on_gap {
            OnGap::Verify => self.reader.look(settings),
            OnGap::Ban => self.reader.scope(settings),
        };
        let (event, received) = ("a gap".to_owned(), self.clock.now());
        let origin = Origin::Gap(subscribed.clone());
        match meaning {
            Ok(meaning) => {
                let debounce = settings.debounce;
                Some(Work { origin, event, meaning, debounce, received, failures: 0, put_off: 0 })
            }
            Err(Nothing::Elsewhere) => None,
            Err(Nothing::Refused(why)) => {
                self.complain(&origin, &event, &why);
                None
            }
        }
    }
}
