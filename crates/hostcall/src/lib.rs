//! The headers of a request, as the gateway writes them into the module's memory.
//!
//! The SDK's `get_map_bytes` makes two copies of each header, which is a third of what a request with a known
//! token costs in the module, and panics where a name is not UTF-8. This gives the bytes as they came.

/// The request's headers in the form of the ABI (proxy-wasm 0.2.1, `proxy_get_header_map_pairs`): the number of
/// headers; for each the lengths of its name and value; then for each its name, a zero, its value, a zero.
/// All numbers have four bytes, the lowest first. Empty when the gateway gives none.
#[must_use]
pub fn request_headers() -> Vec<u8> {
    #[cfg(target_family = "wasm")]
    {
        wasm::request_headers()
    }
    #[cfg(not(target_family = "wasm"))]
    {
        Vec::new()
    }
}

#[cfg(target_family = "wasm")]
mod wasm {
    use std::ptr::null_mut;

    /// `MapType::HttpRequestHeaders` of the ABI.
    const HTTP_REQUEST_HEADERS: u32 = 0;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    }

    pub(super) fn request_headers() -> Vec<u8> {
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: the gateway writes one pointer and one number to the two places, which are ours.
        let status =
            unsafe { proxy_get_header_map_pairs(HTTP_REQUEST_HEADERS, &raw mut data, &raw mut size) };
        if status != 0 || data.is_null() {
            return Vec::new();
        }
        // SAFETY: the gateway had these `size` bytes allocated by the SDK's `proxy_on_memory_allocate`, which
        // gives a boxed slice of that size away, and has filled them. Nobody else knows of them.
        unsafe { Vec::from_raw_parts(data, size, size) }
    }
}
