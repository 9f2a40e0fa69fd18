//! The server's first message of a TLS 1.2 handshake, with a self-signed certificate.
//!
//! The client judges the certificate before it looks at the signature over the key exchange, so
//! that none is needed.

use bytes::Bytes;

/// For `klavi.invalid`, from 2020 to 2120.
const CERTIFICATE: &[u8] = include_bytes!("self_signed.der");

const TLS_1_2: [u8; 2] = [3, 3];
const ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: [u8; 2] = [0xc0, 0x2b];
const SECP256R1: [u8; 2] = [0, 23];
const ECDSA_SECP256R1_SHA256: [u8; 2] = [4, 3];

pub(crate) fn self_signed() -> Bytes {
    let (no_session, no_compression) = ([0], [0]);
    let hello = [
        &TLS_1_2[..],
        &[7; 32],
        &no_session,
        &ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        &no_compression,
    ]
    .concat();
    let named_curve = [3];
    let (point, signature) = ([4; 65], [0; 70]);
    let key_exchange = [
        &named_curve[..],
        &SECP256R1,
        &[point.len() as u8],
        &point,
        &ECDSA_SECP256R1_SHA256,
        &[0, signature.len() as u8],
        &signature,
    ];
    let certificates = with_length(&with_length(CERTIFICATE));
    let messages = [
        (2, hello),
        (11, certificates),
        (12, key_exchange.concat()),
        (14, Vec::new()),
    ];
    let mut flight = Vec::new();
    for (kind, message) in messages {
        let message = [&[kind][..], &with_length(&message)].concat();
        let record = [
            &[0x16][..],
            &TLS_1_2,
            &(message.len() as u16).to_be_bytes(),
            &message,
        ];
        flight.extend(record.concat());
    }
    flight.into()
}

/// After its length in three bytes.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[1..], bytes].concat()
}
