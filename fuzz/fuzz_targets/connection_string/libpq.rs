//! Parses a connection string with libpq.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;

/// The options that the string itself sets, or libpq's error.
pub fn parse(text: &str) -> Result<HashMap<String, String>, String> {
    let text = CString::new(text).map_err(|_| "a zero byte".to_owned())?;
    let mut error = ptr::null_mut();
    // SAFETY: both pointers are valid for the call. The results are freed by the calls below.
    let options = unsafe { pq_sys::PQconninfoParse(text.as_ptr(), &mut error) };
    if options.is_null() {
        // SAFETY: libpq sets a message if it returns null, unless memory has run out.
        let message = unsafe { CStr::from_ptr(error) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: libpq allocated it, and it is not used again.
        unsafe { pq_sys::PQfreemem(error.cast()) };
        return Err(message);
    }
    let mut set = HashMap::new();
    let mut next = options;
    // SAFETY: the array ends with an entry without a keyword.
    while let Some(option) = unsafe { next.as_ref() }.filter(|option| !option.keyword.is_null()) {
        if !option.val.is_null() {
            // SAFETY: both are strings of libpq's, which are valid until the array is freed.
            let (keyword, value) =
                unsafe { (CStr::from_ptr(option.keyword), CStr::from_ptr(option.val)) };
            let text = |string: &CStr| string.to_string_lossy().into_owned();
            set.insert(text(keyword), text(value));
        }
        // SAFETY: it was not the last entry.
        next = unsafe { next.add(1) };
    }
    // SAFETY: libpq allocated it, and it is not used again.
    unsafe { pq_sys::PQconninfoFree(options) };
    Ok(set)
}
