//! A global allocator that searches every block for pieces of secrets before it frees it.
//!
//! Only the heap is searched. Compiled code also spills parts of what it works on to the stack (a
//! hasher that read a token leaves 8 bytes of it there), and safe code cannot wipe those.
#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without it"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, RefCell},
    process, ptr, slice,
    sync::OnceLock,
};

use crate::{ACCESS, SECRET, SECRETS};

/// A secret is found by any piece of this length, anywhere in a block.
pub(crate) const PIECE: usize = 8;

/// The most blocks that a watched thread may hold at the same time.
const MOST_BLOCKS: usize = 4096;

#[global_allocator]
static HEAP: Heap = Heap;

struct Heap;

// `realloc` is the default one: `alloc`, a copy, and `dealloc` of the old block. So every buffer
// that grows moves, on every system, and what it leaves behind is searched.
//
// SAFETY: every call is forwarded to `System` with its arguments unchanged.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that a piece left in freed memory is not found again in the next block there.
        let block = unsafe { System.alloc_zeroed(layout) };
        WATCH.with(|watch| watch.allocated(block, layout.size()));
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        WATCH.with(|watch| watch.freed(block, layout.size()));
        unsafe { System.dealloc(block, layout) };
    }
}

thread_local! {
    // `const` and without a destructor: the allocator may use it at any time.
    static WATCH: Watch = const { Watch::off() };
}

/// The heap use of one thread. The allocator calls it, so its methods must not allocate.
struct Watch {
    on: Cell<bool>,
    /// The live blocks that were allocated since the scene began, and how many there are.
    blocks: RefCell<([(*mut u8, usize); MOST_BLOCKS], usize)>,
    /// For each secret, how many blocks were freed with a piece of it in them.
    leaks: Cell<Counts>,
}

type Counts = [usize; SECRETS.len()];

impl Watch {
    const fn off() -> Self {
        Self {
            on: Cell::new(false),
            blocks: RefCell::new(([(ptr::null_mut(), 0); MOST_BLOCKS], 0)),
            leaks: Cell::new([0; SECRETS.len()]),
        }
    }

    fn allocated(&self, block: *mut u8, size: usize) {
        if self.on.get() && !block.is_null() {
            let (blocks, length) = &mut *self.blocks.borrow_mut();
            // Out of room: raise `MOST_BLOCKS`. An allocator must not panic.
            let Some(free) = blocks.get_mut(*length) else {
                process::abort()
            };
            *free = (block, size);
            *length += 1;
        }
    }

    fn freed(&self, block: *mut u8, size: usize) {
        if !self.on.get() {
            return;
        }
        let (blocks, length) = &mut *self.blocks.borrow_mut();
        // A block older than the scene is not listed, but is searched all the same.
        if let Some(at) = blocks[..*length]
            .iter()
            .rposition(|(known, _)| *known == block)
        {
            *length -= 1;
            blocks.swap(at, *length);
        }
        let mut leaks = self.leaks.get();
        // SAFETY: the block is still allocated, its owner has given it up, and it was zeroed when
        // it was allocated.
        count(unsafe { slice::from_raw_parts(block, size) }, &mut leaks);
        self.leaks.set(leaks);
    }

    fn held(&self) -> Counts {
        let (blocks, length) = &*self.blocks.borrow();
        let mut held = Counts::default();
        for &(block, size) in &blocks[..*length] {
            // SAFETY: the block is allocated and was zeroed. Only this thread uses it, and does not
            // write to it now.
            count(unsafe { slice::from_raw_parts(block, size) }, &mut held);
        }
        held
    }
}

/// All pieces of all secrets, sorted, each with the index of its secret.
static PIECES: OnceLock<Vec<([u8; PIECE], usize)>> = OnceLock::new();

fn pieces() -> Vec<([u8; PIECE], usize)> {
    let mut pieces = Vec::new();
    let basic = base64(&format!("{}:{}", form(ACCESS), form(SECRET)));
    for (number, (_, secret)) in SECRETS.iter().enumerate() {
        // Verbatim, in the form in which the crate compares it with a text, and as it is sent to
        // OAuth2 servers.
        let mut forms = vec![
            (*secret).to_owned(),
            secret.to_ascii_lowercase(),
            form(secret),
        ];
        forms.extend((*secret == SECRET).then(|| basic.clone()));
        for text in forms {
            let windows = text.as_bytes().windows(PIECE);
            pieces.extend(windows.map(|piece| (piece.try_into().unwrap(), number)));
        }
    }
    pieces.sort_unstable();
    pieces
}

fn form(text: &str) -> String {
    let encoded = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks_exact(3);
    let bits = groups.map(|group| {
        group
            .iter()
            .fold(0, |bits, &byte| bits << 8 | usize::from(byte))
    });
    bits.flat_map(|bits| [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63])))
        .collect()
}

/// Adds one to the count of each secret that has a piece in `block`.
fn count(block: &[u8], counts: &mut Counts) {
    let pieces = PIECES.get().map_or(&[][..], Vec::as_slice);
    let mut seen = [false; SECRETS.len()];
    for window in block.windows(PIECE) {
        if let Ok(found) = pieces.binary_search_by(|(piece, _)| piece[..].cmp(window)) {
            seen[pieces[found].1] = true;
        }
    }
    counts
        .iter_mut()
        .zip(seen)
        .for_each(|(count, seen)| *count += usize::from(seen));
}

/// What a scene left on the heap, as names of secrets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Left {
    /// Pieces of these were in a block that was freed.
    pub(crate) freed: Vec<&'static str>,
    /// Pieces of these are in a block that is still allocated.
    pub(crate) held: Vec<&'static str>,
}

/// Runs a scene on this thread.
pub(crate) fn left_by(scene: impl FnOnce()) -> Left {
    PIECES.get_or_init(pieces);
    clear_stack();
    WATCH.with(|watch| watch.on.set(true));
    scene();
    let (leaks, held) = WATCH.with(|watch| {
        watch.on.set(false);
        let held = watch.held();
        watch.blocks.borrow_mut().1 = 0;
        (watch.leaks.take(), held)
    });
    Left {
        freed: names(leaks),
        held: names(held),
    }
}

/// Overwrites what earlier scenes spilled to the stack below. A future that is moved to the heap
/// takes the bytes along that it does not use yet, whatever was there before.
#[inline(never)]
fn clear_stack() {
    std::hint::black_box([0_u8; 256 * 1024]);
}

/// The secrets with a piece in a live block that was allocated since the scene began.
pub(crate) fn held() -> Vec<&'static str> {
    names(WATCH.with(Watch::held))
}

fn names(counts: Counts) -> Vec<&'static str> {
    let found = SECRETS.iter().zip(counts).filter(|(_, count)| *count > 0);
    found.map(|((name, _), _)| *name).collect()
}
