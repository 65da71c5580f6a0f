//! Rules of retention: what parses says itself again, and means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::registry::Rule;

fuzz_target!(|text: &str| {
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse::<Rule>().expect("its own words"), rule);
    }
});
