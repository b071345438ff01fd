//! What is wrong, in one line a person understands, and when to say it: each trouble is logged when it begins and when it
//! changes in kind, never again while it lasts, and its end is logged once.
//!
//! | slot       | set by                                           | cleared by                                      |
//! | ---------- | ------------------------------------------------ | ----------------------------------------------- |
//! | Connection | a failed probe (broker, credentials, TLS, topic) | a probe that finds every topic                  |
//! | Group      | the group's coordinator refusing us              | the next assignment                             |
//! | Positions  | the store not answering                          | its answer                                      |
//! | Partitions | a position outside of the log, no watermarks     | the partitions beginning, or leaving us         |

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::bus::TopicPartition;

/// Orders by what to show first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Connection,
    Group,
    Positions,
    Partitions,
}

/// Later kinds say more than earlier ones, and keep their place as the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Unreachable,
    Tls,
    Credentials,
    TopicMissing,
    TopicDenied,
    GroupDenied,
    Other,
}

/// The kind of a librdkafka error, where it says something about the connection.
pub(super) fn kind_of(code: Code) -> Option<Kind> {
    Some(match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => Kind::Credentials,
        Code::SSL => Kind::Tls,
        Code::Resolve
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::NetworkException => Kind::Unreachable,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Kind::TopicMissing,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Kind::TopicDenied,
        Code::GroupAuthorizationFailed => Kind::GroupDenied,
        _ => return None,
    })
}

/// librdkafka's reason without what varies from one repetition to the next.
pub(super) fn clean(reason: &str) -> &str {
    let cut = [" (after ", ": (errno"].iter().filter_map(|tail| reason.find(tail)).min();
    reason[..cut.unwrap_or(reason.len())].trim_end_matches([':', ' ']).trim_start()
}

/// The sentence in librdkafka's `Name (Origin: sentence)`.
pub(super) fn describe(code: Code) -> String {
    let text = code.to_string();
    text.split_once(" (").map_or(text.as_str(), |(_, sentence)| sentence.trim_end_matches(')')).to_owned()
}

/// What a probe found out about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicState {
    Present,
    Failed(Code),
}

/// Judges a probe: `None` when all is well.
pub(super) fn judge(
    brokers: &str,
    probe: Result<&[(String, TopicState)], Code>,
    hint: Option<(Kind, &str)>,
) -> Option<(Kind, String)> {
    let topics = match probe {
        Ok(topics) => topics,
        Err(code) => {
            let (kind, reason) = hint.map_or_else(
                || (kind_of(code).unwrap_or(Kind::Unreachable), describe(code)),
                |(kind, reason)| (kind, reason.to_owned()),
            );
            return Some((
                kind,
                match kind {
                    Kind::Credentials => format!("kafka: {brokers} does not accept the credentials: {reason}"),
                    Kind::Tls => format!("kafka: no TLS connection to {brokers}: {reason}"),
                    _ => format!("kafka: cannot reach {brokers}: {reason}"),
                },
            ));
        }
    };
    let (topic, code) = topics.iter().find_map(|(topic, state)| match state {
        TopicState::Failed(code) => Some((topic, *code)),
        TopicState::Present => None,
    })?;
    Some(match kind_of(code) {
        Some(Kind::TopicMissing) => (Kind::TopicMissing, format!("kafka: topic {topic} does not exist on {brokers}")),
        Some(Kind::TopicDenied) => (Kind::TopicDenied, format!("kafka: {brokers} does not let us read topic {topic}")),
        _ => (Kind::Other, format!("kafka: topic {topic} on {brokers}: {}", describe(code))),
    })
}

/// The health of one subscription.
pub(super) struct Health {
    brokers: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    troubles: BTreeMap<Slot, (Kind, String)>,
    connected: bool,
    /// The most telling error since the last good probe.
    hint: Option<(Kind, String)>,
    end_offsets: Vec<(TopicPartition, i64)>,
}

impl Health {
    pub fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single assignment: a panic elsewhere cannot leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> Option<String> {
        self.inner().troubles.values().next().map(|(_, words)| words.clone())
    }

    pub fn set(&self, slot: Slot, kind: Kind, words: String) {
        let mut inner = self.inner();
        let before = inner.troubles.get(&slot);
        // A broker's reason may differ from one try to the next while the trouble is the same.
        let news = before.is_none_or(|(old, said)| *old != kind || (slot == Slot::Partitions && *said != words));
        if news {
            tracing::warn!("{words}; trying again");
        }
        if news || before.is_none_or(|(_, said)| *said != words) {
            inner.troubles.insert(slot, (kind, words));
        }
    }

    pub fn clear(&self, slot: Slot) {
        let mut inner = self.inner();
        if inner.troubles.remove(&slot).is_some() {
            match slot {
                Slot::Connection => {}
                Slot::Group => tracing::info!("kafka: the group accepts us again"),
                Slot::Positions => tracing::info!("kafka: the store gives positions again"),
                Slot::Partitions => tracing::info!("kafka: all partitions are being read"),
            }
        }
    }

    /// Remembers why the broker may be out of reach, for when a probe says that it is.
    pub fn hint(&self, kind: Kind, reason: &str) {
        let mut inner = self.inner();
        if inner.hint.as_ref().is_none_or(|(known, _)| kind >= *known) {
            inner.hint = Some((kind, clean(reason).to_owned()));
        }
    }

    /// Takes the outcome of a probe; `true` when all is well.
    pub fn probed(&self, probe: Result<&[(String, TopicState)], Code>) -> bool {
        let verdict = {
            let inner = self.inner();
            let hint = inner.hint.as_ref().map(|(kind, reason)| (*kind, reason.as_str()));
            judge(&self.brokers, probe, hint)
        };
        // What went wrong before the brokers answered must not explain what goes wrong after.
        if probe.is_ok() {
            self.inner().hint = None;
        }
        match verdict {
            Some((kind, words)) => {
                self.set(Slot::Connection, kind, words);
                self.inner().connected = false;
                false
            }
            None => {
                self.clear(Slot::Connection);
                let mut inner = self.inner();
                if !inner.connected {
                    inner.connected = true;
                    tracing::info!("kafka: connected to {}", self.brokers);
                }
                true
            }
        }
    }

    pub fn end_offsets(&self) -> Vec<(TopicPartition, i64)> {
        self.inner().end_offsets.clone()
    }

    pub fn set_end_offsets(&self, end_offsets: Vec<(TopicPartition, i64)>) {
        self.inner().end_offsets = end_offsets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused";

    #[test]
    fn reasons_are_cut_before_what_varies() {
        let reason = format!("{REFUSED} (after 0ms in state CONNECT, 3 identical error(s) suppressed)");
        assert_eq!(clean(&reason), REFUSED);
        assert_eq!(clean("plain"), "plain");
        assert_eq!(describe(Code::BrokerTransportFailure), "Local: Broker transport failure");
    }

    #[test]
    fn a_failed_probe_tells_credentials_from_an_absent_broker() {
        let judged = |hint| judge("b:1", Err(Code::OperationTimedOut), hint).expect("a trouble");
        let (kind, words) = judged(Some((Kind::Credentials, "SASL authentication error: no such user")));
        assert_eq!(kind, Kind::Credentials);
        assert_eq!(words, "kafka: b:1 does not accept the credentials: SASL authentication error: no such user");
        assert_eq!(
            judged(Some((Kind::Unreachable, REFUSED))),
            (Kind::Unreachable, format!("kafka: cannot reach b:1: {REFUSED}"))
        );
        assert_eq!(judged(None).0, Kind::Unreachable);
    }

    #[test]
    fn a_probe_names_the_topic_that_is_missing_or_denied() {
        let of = |code| {
            let topics = [("here".to_owned(), TopicState::Present), ("costs".to_owned(), TopicState::Failed(code))];
            judge("b:1", Ok(&topics), None).expect("a trouble").1
        };
        assert_eq!(of(Code::UnknownTopicOrPartition), "kafka: topic costs does not exist on b:1");
        assert_eq!(of(Code::TopicAuthorizationFailed), "kafka: b:1 does not let us read topic costs");
        assert_eq!(judge("b:1", Ok(&[("here".to_owned(), TopicState::Present)]), None), None);
    }

    #[test]
    fn the_most_telling_error_is_kept_and_a_good_probe_clears_all() {
        let health = Health::new("b:1");
        health.hint(Kind::Credentials, "bad password (after 3ms)");
        health.hint(Kind::Unreachable, "1/1 brokers are down");
        assert!(!health.probed(Err(Code::OperationTimedOut)));
        let words = health.trouble().expect("a trouble");
        assert!(words.ends_with("bad password"), "{words}");
        assert!(health.probed(Ok(&[("t".to_owned(), TopicState::Present)])));
        assert_eq!(health.trouble(), None);
        assert!(!health.probed(Err(Code::OperationTimedOut)));
        assert!(!health.trouble().expect("a new trouble").contains("password"));
    }

    #[test]
    fn the_broker_is_shown_before_what_follows_from_its_absence() {
        let health = Health::new("b:1");
        health.set(Slot::Partitions, Kind::Other, "kafka: t/0 stands still".to_owned());
        health.set(Slot::Connection, Kind::Unreachable, "kafka: away".to_owned());
        assert_eq!(health.trouble().as_deref(), Some("kafka: away"));
        health.clear(Slot::Connection);
        assert_eq!(health.trouble().as_deref(), Some("kafka: t/0 stands still"));
    }
}
