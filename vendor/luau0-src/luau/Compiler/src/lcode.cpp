// This file is part of the Luau programming language and is licensed under MIT License; see LICENSE.txt for details
#include "luacode.h"

#include "Luau/Compiler.h"

#include <stdlib.h>
#include <string.h>

#include <string>

// Part of Mesophyll's changes to Luau: see luau0-src.patch in the folder above this crate. mlua compiles the same text
// for each VM that it makes: a thread keeps what became of the last short text that was compiled with the defaults.
static std::string compileOnce(const char* source, size_t size, const Luau::CompileOptions& o)
{
    static thread_local std::string lastSource, lastResult;

    bool isDefault = o.optimizationLevel == 1 && o.debugLevel == 1 && !o.typeInfoLevel && !o.coverageLevel && !o.vectorLib &&
                     !o.vectorCtor && !o.vectorType && !o.vectorPrecision && !o.mutableGlobals && !o.userdataTypes &&
                     !o.librariesWithKnownMembers && !o.disabledBuiltins;
    if (!isDefault || size > 4096)
        return compile(std::string(source, size), o);
    if (lastResult.empty() || lastSource.compare(0, std::string::npos, source, size) != 0)
    {
        lastResult = compile(std::string(source, size), o);
        lastSource.assign(source, size);
    }
    return lastResult;
}

char* luau_compile(const char* source, size_t size, lua_CompileOptions* options, size_t* outsize)
{
    LUAU_ASSERT(outsize);

    Luau::CompileOptions opts;

    if (options)
    {
        static_assert(sizeof(lua_CompileOptions) == sizeof(Luau::CompileOptions), "C and C++ interface must match");
        memcpy(static_cast<void*>(&opts), options, sizeof(opts));
    }

    std::string result = compileOnce(source, size, opts);

    char* copy = static_cast<char*>(malloc(result.size()));
    if (!copy)
        return nullptr;

    memcpy(copy, result.data(), result.size());
    *outsize = result.size();
    return copy;
}

void luau_set_compile_constant_nil(lua_CompileConstant* constant)
{
    Luau::setCompileConstantNil(constant);
}

void luau_set_compile_constant_boolean(lua_CompileConstant* constant, int b)
{
    Luau::setCompileConstantBoolean(constant, b != 0);
}

void luau_set_compile_constant_number(lua_CompileConstant* constant, double n)
{
    Luau::setCompileConstantNumber(constant, n);
}

void luau_set_compile_constant_integer64(lua_CompileConstant* constant, int64_t l)
{
    Luau::setCompileConstantInteger64(constant, l);
}

void luau_set_compile_constant_vector(lua_CompileConstant* constant, float x, float y, float z, float w)
{
    Luau::setCompileConstantVector(constant, x, y, z, w);
}

void luau_set_compile_constant_vectord(lua_CompileConstant* constant, double x, double y, double z, double w)
{
    Luau::setCompileConstantVectord(constant, x, y, z, w);
}

void luau_set_compile_constant_string(lua_CompileConstant* constant, const char* s, size_t l)
{
    Luau::setCompileConstantString(constant, s, l);
}
