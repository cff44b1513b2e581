// What a kernel takes, derived from its type, and a way to call it on an array of pointers.
#pragma once

// The launch's own reads of the arguments are none of the kernel's.
#ifdef EMULATOR_TRACED
#define EMULATOR_UNTRACED __attribute__((no_sanitize("thread")))
#else
#define EMULATOR_UNTRACED
#endif

namespace emulator {

// Compiler builtins for what <type_traits> and <utility> would cost compile time for.
template <class T>
struct Pointee {
    using type = T;
    static constexpr bool pointer = false, constant = false;
};
template <class T>
struct Pointee<T*> {
    using type = T;
    static constexpr bool pointer = true, constant = false;
};
template <class T>
struct Pointee<const T*> {
    using type = T;
    static constexpr bool pointer = true, constant = true;
};
template <class T>
struct Plain {
    using type = T;
};
template <class T>
struct Plain<volatile T> {
    using type = T;
};

template <class T>
struct Kind {
    static constexpr char value = 'S';
};
#define EMULATOR_KIND(type, letter)           \
    template <>                               \
    struct Kind<type> {                       \
        static constexpr char value = letter; \
    };
EMULATOR_KIND(void, 'V')
EMULATOR_KIND(bool, 'b')
EMULATOR_KIND(float, 'f')
EMULATOR_KIND(double, 'f')
EMULATOR_KIND(char, 'i')
EMULATOR_KIND(signed char, 'i')
EMULATOR_KIND(short, 'i')
EMULATOR_KIND(int, 'i')
EMULATOR_KIND(long, 'i')
EMULATOR_KIND(long long, 'i')
EMULATOR_KIND(unsigned char, 'u')
EMULATOR_KIND(unsigned short, 'u')
EMULATOR_KIND(unsigned, 'u')
EMULATOR_KIND(unsigned long, 'u')
EMULATOR_KIND(unsigned long long, 'u')
#undef EMULATOR_KIND

template <class T>
struct Size {
    static constexpr uint32_t bytes = sizeof(T), align = alignof(T);
};
template <>
struct Size<void> {
    static constexpr uint32_t bytes = 1, align = 1;
};

template <class T>
constexpr const char* spelled() {
    return __PRETTY_FUNCTION__;
}

template <class A>
constexpr Parameter describe() {
    using To = typename Plain<typename Pointee<A>::type>::type;
    using Element = typename Scalar<To>::type;
    return {spelled<A>(),    Pointee<A>::pointer,  Pointee<A>::constant, Size<To>::bytes,
            Size<To>::align, Kind<Element>::value, Size<Element>::bytes};
}

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    using type = Indices<I...>;
};

template <auto Function>
struct Entry;

template <class... A, void (*Function)(A...)>
struct Entry<Function> {
    template <int... I>
    EMULATOR_UNTRACED static void call(void** arguments, Indices<I...>) {
        (void)arguments;
        Function(*static_cast<A*>(arguments[I])...);
    }
    EMULATOR_UNTRACED static void run(void** arguments) {
        call(arguments, typename Count<sizeof...(A)>::type{});
    }

    static constexpr Parameter parameters[sizeof...(A) + 1] = {describe<A>()..., Parameter{}};

    static constexpr Kernel kernel(const char* name, unsigned max_threads) {
        return {name, run, parameters, sizeof...(A), max_threads};
    }
};

// The first argument of __launch_bounds__ is the most threads a block may have.
constexpr unsigned bounds(unsigned max_threads = 1024, unsigned = 0, unsigned = 0) {
    return max_threads;
}

}  // namespace emulator
