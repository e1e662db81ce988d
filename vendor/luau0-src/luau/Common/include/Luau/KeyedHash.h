// Part of Mesophyll's changes to Luau: see luau0-src.patch in the folder above this crate.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__has_include)
#if __has_include(<sys/random.h>)
#include <sys/random.h>
#endif
#endif

namespace Luau
{

// SipHash-1-3 (Aumasson and Bernstein) under a key that is drawn once a process and never shown.
struct KeyedHash
{
    uint64_t v0, v1, v2, v3;

    KeyedHash()
    {
        // Initialised once, also when several threads come here first at the same time.
        static const Key key;
        v0 = key.k0 ^ 0x736f6d6570736575ull;
        v1 = key.k1 ^ 0x646f72616e646f6dull;
        v2 = key.k0 ^ 0x6c7967656e657261ull;
        v3 = key.k1 ^ 0x7465646279746573ull;
    }

    void add(uint64_t word)
    {
        v3 ^= word;
        round();
        v0 ^= word;
    }

    uint32_t finish()
    {
        v2 ^= 0xff;
        round();
        round();
        round();
        uint64_t hash = v0 ^ v1 ^ v2 ^ v3;
        return uint32_t(hash ^ (hash >> 32));
    }

private:
    struct Key
    {
        uint64_t k0, k1;

        Key()
        {
            // A hash without a key is what this is here to prevent, so there is no other way on.
            if (getentropy(this, sizeof(*this)) != 0)
            {
                perror("Luau: the system gives no randomness for the key of the string hash");
                abort();
            }
        }
    };

    void round()
    {
        v0 += v1, v1 = v1 << 13 | v1 >> 51, v1 ^= v0, v0 = v0 << 32 | v0 >> 32;
        v2 += v3, v3 = v3 << 16 | v3 >> 48, v3 ^= v2;
        v0 += v3, v3 = v3 << 21 | v3 >> 43, v3 ^= v0;
        v2 += v1, v1 = v1 << 17 | v1 >> 47, v1 ^= v2, v2 = v2 << 32 | v2 >> 32;
    }
};

inline uint32_t keyedHash(const char* data, size_t size)
{
    KeyedHash hash;
    uint64_t last = uint64_t(size) << 56;
    for (; size >= 8; size -= 8, data += 8)
    {
        uint64_t word;
        memcpy(&word, data, 8);
        hash.add(word);
    }
    for (size_t i = 0; i < size; ++i)
        last |= uint64_t(uint8_t(data[i])) << (8 * i);
    hash.add(last);
    return hash.finish();
}

inline uint32_t keyedHash(uint64_t word)
{
    KeyedHash hash;
    hash.add(word);
    return hash.finish();
}

} // namespace Luau
