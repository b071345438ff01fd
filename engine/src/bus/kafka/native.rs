//! The two calls of librdkafka that the safe wrapper does not give as needed.

use std::{ffi::CString, ptr, slice};

use rdkafka::{
    bindings,
    message::{BorrowedHeaders, BorrowedMessage, Headers, Message},
};

/// The headers of a message as bytes. The wrapper's own iterator panics on a name that is not UTF-8, and any producer could
/// stop the consumer with one.
pub(super) fn headers<'a>(message: &'a BorrowedMessage<'_>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let headers = message.headers();
    let count = headers.map_or(0, Headers::count);
    (0..count).filter_map(move |i| header(headers?, i))
}

fn header(headers: &BorrowedHeaders, index: usize) -> Option<(&[u8], &[u8])> {
    let mut name = ptr::null();
    let mut value = ptr::null();
    let mut value_len = 0;
    // SAFETY: a `&BorrowedHeaders` *is* the native pointer (the wrapper makes it by this cast), alive as long as its message.
    // The call only reads, and fails on an index out of range.
    let outcome = unsafe {
        let native = ptr::from_ref(headers).cast::<bindings::rd_kafka_headers_t>();
        bindings::rd_kafka_header_get_all(native, index, &mut name, &mut value, &mut value_len)
    };
    if outcome != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
        return None;
    }
    // SAFETY: after success the name is a C string and the value, unless null, has `value_len` bytes; both belong to the headers
    // and live as long as they do.
    unsafe {
        let name = std::ffi::CStr::from_ptr(name).to_bytes();
        let value = if value.is_null() { &[][..] } else { slice::from_raw_parts(value.cast::<u8>(), value_len) };
        Some((name, value))
    }
}

/// The end of a partition as its last fetch saw it: no request, no wait. `None` before the first fetch.
pub(super) fn cached_end_offset<C: rdkafka::ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client outlives the call, the name is a C string, and both offsets are written before the return.
    let outcome = unsafe {
        bindings::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &mut low, &mut high)
    };
    (outcome == bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
