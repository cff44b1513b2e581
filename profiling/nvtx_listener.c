/* Hears every NVTX range of a process and appends it to a file, one JSON object a line.

   NVTX loads the library that NVTX_INJECTION64_PATH names, once for each copy of NVTX in the
   process, and lets it fill in the functions that ranges call: the door that Nsight comes in by.
   CONV_KERNEL_LAB_TRACE names the file; all processes of a traced command append to the same one,
   and a line is one write(), so that nothing is lost when a process dies. Times are
   CLOCK_MONOTONIC. Once the file holds CONV_KERNEL_LAB_TRACE_LIMIT bytes, no range is begun any
   more; those begun still end. How many were left out is told at every power of two, and at the
   exit. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

enum { DEEPEST = 512, LONGEST_LINE = 8192, LONGEST_NAME = 2000 };

/* NVTX 3's binary interface: tables of pointers to function pointers, by module and index. */

typedef void (*Function)(void);

typedef struct {
    size_t struct_size;
    int (*get_table)(int module, Function*** table, unsigned* size);
} Callbacks;

enum { EXPORT_CALLBACKS = 1, MODULE_CORE = 1, MODULE_CORE2 = 5 };
enum {
    CORE_MARK_EX = 1,
    CORE_MARK_A,
    CORE_MARK_W,
    CORE_RANGE_START_EX,
    CORE_RANGE_START_A,
    CORE_RANGE_START_W,
    CORE_RANGE_END,
    CORE_RANGE_PUSH_EX,
    CORE_RANGE_PUSH_A,
    CORE_RANGE_PUSH_W,
    CORE_RANGE_POP,
};
enum {
    CORE2_MARK_EX = 1,
    CORE2_RANGE_START_EX,
    CORE2_RANGE_END,
    CORE2_RANGE_PUSH_EX,
    CORE2_RANGE_POP,
    CORE2_REGISTER_STRING_A = 10,
    CORE2_REGISTER_STRING_W,
    CORE2_DOMAIN_CREATE_A,
    CORE2_DOMAIN_CREATE_W,
};

enum { MESSAGE_ASCII = 1, MESSAGE_WIDE = 2, MESSAGE_REGISTERED = 3 };

typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    uint64_t payload;
    int32_t message_type;
    const void* message;
} Attributes;

_Static_assert(offsetof(Attributes, message) == 40, "nvtxEventAttributes_t of a 64-bit process");

/* Text. A domain's or a registered string's handle is its escaped name. */

typedef const char* Name;

static char* put_byte(char* at, const char* end, unsigned char byte) {
    if (at + 6 >= end) return at; /* a name past LONGEST_NAME is cut */
    if (byte == '"' || byte == '\\') {
        *at++ = '\\';
        *at++ = (char)byte;
    } else if (byte < 0x20) {
        at += sprintf(at, "\\u%04x", byte);
    } else {
        *at++ = (char)byte;
    }
    return at;
}

static Name escape(const char* text, char* buffer) {
    char* at = buffer;
    for (; text && *text; text++) at = put_byte(at, buffer + LONGEST_NAME, (unsigned char)*text);
    *at = 0;
    return buffer;
}

static Name escape_wide(const wchar_t* text, char* buffer) {
    char* at = buffer;
    const char* end = buffer + LONGEST_NAME;
    for (; text && *text; text++) {
        const uint32_t c = (uint32_t)*text;
        const int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3; /* UTF-8 */
        static const unsigned char first[] = {0, 0xc0, 0xe0, 0xf0};
        if (at + 6 >= end) break;
        at = put_byte(at, end, (unsigned char)(first[more] | (c >> 6 * more)));
        for (int i = more - 1; i >= 0; i--) *at++ = (char)(0x80 | (c >> 6 * i & 0x3f));
    }
    *at = 0;
    return buffer;
}

static Name message_of(const Attributes* attributes, char* buffer) {
    if (!attributes || attributes->size < sizeof(Attributes)) return "";
    switch (attributes->message_type) {
        case MESSAGE_ASCII:
            return escape(attributes->message, buffer);
        case MESSAGE_WIDE:
            return escape_wide(attributes->message, buffer);
        case MESSAGE_REGISTERED:
            return attributes->message ? attributes->message : "";
        default:
            return "";
    }
}

/* The file. */

static int file = -1;
static long long limit = -1;
static unsigned long long dropped, ids;

static void put_line(const char* format, ...) {
    char line[LONGEST_LINE];
    va_list values;
    va_start(values, format);
    const int size = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (size > 0 && size < (int)sizeof line && write(file, line, (size_t)size) < 0) return;
}

static void put_event(const char* kind, Name domain, Name name, unsigned long long id) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const long long ns = now.tv_sec * 1000000000LL + now.tv_nsec;
    put_line(
        "{\"ph\":\"%s\",\"ns\":%lld,\"pid\":%d,\"tid\":%ld,\"cat\":\"%s\",\"name\":\"%s\","
        "\"id\":%llu}\n",
        kind, ns, (int)getpid(), (long)syscall(SYS_gettid), domain ? domain : "NVTX", name, id);
}

static void put_dropped(void) {
    put_line("{\"ph\":\"dropped\",\"pid\":%d,\"cat\":\"ranges\",\"id\":%llu}\n", (int)getpid(),
             __atomic_load_n(&dropped, __ATOMIC_RELAXED));
}

static int there_is_room(void) {
    if (limit < 0 || lseek(file, 0, SEEK_END) < limit) return 1;
    const unsigned long long now = __atomic_add_fetch(&dropped, 1, __ATOMIC_RELAXED);
    if ((now & (now - 1)) == 0) put_dropped();
    return 0;
}

__attribute__((destructor)) static void tell_dropped(void) {
    if (file >= 0 && dropped) put_dropped();
}

/* Ranges that are open on this thread: a pop ends the latest of its own domain. */

static _Thread_local struct {
    Name domain;
    int written;
} open_ranges[DEEPEST];
static _Thread_local int depth;

static int push(Name domain, Name name) {
    const int level = depth++;
    if (level >= DEEPEST) return level;
    open_ranges[level].domain = domain;
    open_ranges[level].written = there_is_room();
    if (open_ranges[level].written) put_event("B", domain, name, 0);
    return level;
}

static int pop(Name domain) {
    if (depth > DEEPEST) return --depth;
    for (int level = depth - 1; level >= 0; level--) {
        if (open_ranges[level].domain != domain) continue;
        if (open_ranges[level].written) put_event("E", domain, "", 0);
        depth--;
        memmove(open_ranges + level, open_ranges + level + 1,
                (size_t)(depth - level) * sizeof *open_ranges);
        return level;
    }
    return -1;
}

/* A process range's id is even where its beginning was left out. */
static uint64_t start(Name domain, Name name) {
    const uint64_t id = 2 * __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED);
    if (!there_is_room()) return id;
    put_event("b", domain, name, id + 1);
    return id + 1;
}

static void end(Name domain, uint64_t id) {
    if (id & 1) put_event("e", domain, "", id);
}

static void mark(Name domain, Name name) {
    if (there_is_room()) put_event("i", domain, name, 0);
}

/* What NVTX calls. */

typedef const Attributes* A;
static void mark_ex(A a) {
    char buffer[LONGEST_NAME];
    mark(NULL, message_of(a, buffer));
}
static void mark_a(const char* text) {
    char buffer[LONGEST_NAME];
    mark(NULL, escape(text, buffer));
}
static void mark_w(const wchar_t* text) {
    char buffer[LONGEST_NAME];
    mark(NULL, escape_wide(text, buffer));
}
static uint64_t start_ex(A a) {
    char buffer[LONGEST_NAME];
    return start(NULL, message_of(a, buffer));
}
static uint64_t start_a(const char* text) {
    char buffer[LONGEST_NAME];
    return start(NULL, escape(text, buffer));
}
static uint64_t start_w(const wchar_t* text) {
    char buffer[LONGEST_NAME];
    return start(NULL, escape_wide(text, buffer));
}
static void end_default(uint64_t id) {
    end(NULL, id);
}
static int push_ex(A a) {
    char buffer[LONGEST_NAME];
    return push(NULL, message_of(a, buffer));
}
static int push_a(const char* text) {
    char buffer[LONGEST_NAME];
    return push(NULL, escape(text, buffer));
}
static int push_w(const wchar_t* text) {
    char buffer[LONGEST_NAME];
    return push(NULL, escape_wide(text, buffer));
}
static int pop_default(void) {
    return pop(NULL);
}

static void domain_mark_ex(Name domain, A a) {
    char buffer[LONGEST_NAME];
    mark(domain, message_of(a, buffer));
}
static uint64_t domain_start_ex(Name domain, A a) {
    char buffer[LONGEST_NAME];
    return start(domain, message_of(a, buffer));
}
static int domain_push_ex(Name domain, A a) {
    char buffer[LONGEST_NAME];
    return push(domain, message_of(a, buffer));
}
static Name keep_a(const char* text) {
    char buffer[LONGEST_NAME];
    return strdup(escape(text, buffer));
}
static Name keep_w(const wchar_t* text) {
    char buffer[LONGEST_NAME];
    return strdup(escape_wide(text, buffer));
}
static Name register_a(Name domain, const char* text) {
    (void)domain;
    return keep_a(text);
}
static Name register_w(Name domain, const wchar_t* text) {
    (void)domain;
    return keep_w(text);
}

static const struct {
    int module, index;
    Function function;
} hooks[] = {
#define HOOK(module, index, function) {module, index, (Function)function}
    HOOK(MODULE_CORE, CORE_MARK_EX, mark_ex),
    HOOK(MODULE_CORE, CORE_MARK_A, mark_a),
    HOOK(MODULE_CORE, CORE_MARK_W, mark_w),
    HOOK(MODULE_CORE, CORE_RANGE_START_EX, start_ex),
    HOOK(MODULE_CORE, CORE_RANGE_START_A, start_a),
    HOOK(MODULE_CORE, CORE_RANGE_START_W, start_w),
    HOOK(MODULE_CORE, CORE_RANGE_END, end_default),
    HOOK(MODULE_CORE, CORE_RANGE_PUSH_EX, push_ex),
    HOOK(MODULE_CORE, CORE_RANGE_PUSH_A, push_a),
    HOOK(MODULE_CORE, CORE_RANGE_PUSH_W, push_w),
    HOOK(MODULE_CORE, CORE_RANGE_POP, pop_default),
    HOOK(MODULE_CORE2, CORE2_MARK_EX, domain_mark_ex),
    HOOK(MODULE_CORE2, CORE2_RANGE_START_EX, domain_start_ex),
    HOOK(MODULE_CORE2, CORE2_RANGE_END, end),
    HOOK(MODULE_CORE2, CORE2_RANGE_PUSH_EX, domain_push_ex),
    HOOK(MODULE_CORE2, CORE2_RANGE_POP, pop),
    HOOK(MODULE_CORE2, CORE2_REGISTER_STRING_A, register_a),
    HOOK(MODULE_CORE2, CORE2_REGISTER_STRING_W, register_w),
    HOOK(MODULE_CORE2, CORE2_DOMAIN_CREATE_A, keep_a),
    HOOK(MODULE_CORE2, CORE2_DOMAIN_CREATE_W, keep_w),
};

__attribute__((visibility("default"))) int InitializeInjectionNvtx2(
    const void* (*get_export_table)(uint32_t)) {
    const char* path = getenv("CONV_KERNEL_LAB_TRACE");
    const char* most = getenv("CONV_KERNEL_LAB_TRACE_LIMIT");
    if (file < 0 && path) file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (most) limit = atoll(most);
    const Callbacks* callbacks = get_export_table(EXPORT_CALLBACKS);
    if (file < 0 || !callbacks || callbacks->struct_size < sizeof *callbacks) return 0;
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        Function** table;
        unsigned size;
        if (!callbacks->get_table(hooks[i].module, &table, &size)) return 0;
        if ((unsigned)hooks[i].index < size) *table[hooks[i].index] = hooks[i].function;
    }
    return 1;
}
