//! The contract, as files: what emitters send, and what is understood of it or said about it.

use super::*;
use crate::event::Dim;

/// Compares with a file that a person can review; `UPDATE_FIXTURES=1` writes it anew.
fn assert_matches(name: &str, found: &str) {
    let path = format!("{}/../fixtures/events/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{name} differs from what is understood now:\n{found}");
}

fn describe(line: &str) -> String {
    let mut out = String::new();
    decode(line.as_bytes(), None, |decoded| {
        let text = match &decoded.event {
            Ok(event) => format!(
                "{}|{}|{}|{}|{}|{}tier={:?}|total={:?}|cost={:?}|span={:?}|user={:?}|{}\n",
                event.source,
                event.event_id,
                event.time,
                Dim::ALL.map(|dim| &*event.dims[dim as usize]).join("/"),
                event
                    .usage
                    .iter()
                    .map(|(meter, count)| format!("{}={count}", meter.name()))
                    .collect::<Vec<_>>()
                    .join(" "),
                event.unpriceable.map(|code| format!("unpriceable={code}|")).unwrap_or_default(),
                event.service_tier,
                event.tokens_total,
                event.reported_cost.map(|cost| cost.to_string()),
                event.span_id,
                event.user_id,
                event.attributes.as_deref().unwrap_or("-"),
            ),
            Err(rejection) => format!("[{}] {}: {}\n", decoded.index, rejection.code.name(), rejection.message),
        };
        out.push_str(&text);
    });
    assert!(!out.is_empty(), "EO-3: {line} ends somewhere");
    out
}

fn describe_all(lines: &str) -> String {
    lines.lines().map(describe).collect()
}

#[test]
fn what_emitters_in_the_wild_send_is_understood() {
    assert_matches("accepted.expected", &describe_all(include_str!("../../../fixtures/events/accepted.ndjson")));
}

#[test]
fn what_cannot_be_used_is_rejected_with_field_value_and_expectation() {
    assert_matches("rejected.expected", &describe_all(include_str!("../../../fixtures/events/rejected.ndjson")));
}

#[test]
fn bytes_that_are_not_utf_8_and_records_beyond_the_limit_are_rejected_whole() {
    let mut seen = Vec::new();
    let large = vec![b' '; RECORD_BYTES_MAX + 1];
    for record in [&b"{\"event_id\": \"\xff\"}"[..], &large] {
        decode(record, None, |decoded| {
            assert_eq!(decoded.raw.len(), record.len());
            seen.push(decoded.event.unwrap_err().code);
        });
    }
    assert_eq!(seen, [RejectionCode::Malformed, RejectionCode::TooLarge]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_or_lose_a_record(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let mut ends = 0;
        decode(&bytes, None, |_| ends += 1);
        proptest::prop_assert!(ends > 0, "EO-3");
    }

    #[test]
    fn no_json_makes_the_decoder_panic_or_lose_a_record(text in r#"[\[{]("[a-z_]{1,14}":("[^"]{0,5}"|[0-9.e+-]{1,6}|null|\{\}|\[\]),?){0,6}[\]}]"#) {
        let mut ends = 0;
        decode(text.as_bytes(), None, |_| ends += 1);
        proptest::prop_assert!(ends > 0, "EO-3");
    }
}
