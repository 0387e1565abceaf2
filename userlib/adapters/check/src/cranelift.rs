// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions of cranelift-jit.

use crate::{Outcome, Test, equal, executable_mappings, holds};
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Value, types};
use cranelift_codegen::{Context, settings};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{DataDescription, FuncId, Linkage, Module, default_libcall_names};
use jitfd::Jit;
use jitfd_cranelift::CodeMemory;
use std::error::Error;

pub const TESTS: &[Test] = &[
    ("cranelift: refused without the adapter", refused_without),
    ("cranelift: functions one after the other", one_by_one),
    ("cranelift: functions all at once", all_at_once),
    ("cranelift: data beside the code", with_data),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Function = extern "C" fn(i64) -> i64;

fn builder() -> Result<JITBuilder> {
    let flags = settings::Flags::new(settings::builder());
    let isa = cranelift_native::builder()?.finish(flags)?;
    Ok(JITBuilder::with_isa(isa, default_libcall_names()))
}

fn module(jit: &Jit) -> Result<JITModule> {
    let mut builder = builder()?;
    builder.memory_provider(Box::new(CodeMemory::new(jit.clone(), 16 << 20)?));
    Ok(JITModule::new(builder))
}

/// Defines a function of one number: `body` makes its result of its argument.
fn define(
    module: &mut JITModule,
    name: &str,
    body: impl FnOnce(&mut JITModule, &mut FunctionBuilder<'_>, Value) -> Value,
) -> Result<FuncId> {
    let mut context = Context::new();
    let signature = &mut context.func.signature;
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    let id = module.declare_function(name, Linkage::Export, &context.func.signature)?;
    let mut reused = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut reused);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_block(block);
    let argument = builder.block_params(block)[0];
    let result = body(module, &mut builder, argument);
    builder.ins().return_(&[result]);
    builder.finalize(module.target_config());
    module.define_function(id, &mut context)?;
    Ok(id)
}

/// Defines a function that adds `number` to what `before` returns, or to its argument.
fn define_sum(module: &mut JITModule, number: i64, before: Option<FuncId>) -> Result<FuncId> {
    define(
        module,
        &format!("f{number}"),
        |module, builder, argument| {
            let value = match before {
                Some(before) => {
                    let callee = module.declare_func_in_func(before, builder.func);
                    let call = builder.ins().call(callee, &[argument]);
                    builder.inst_results(call)[0]
                }
                None => argument,
            };
            builder.ins().iadd_imm_s(value, number)
        },
    )
}

fn call(module: &JITModule, id: FuncId, argument: i64) -> i64 {
    let address = module.get_finalized_function(id);
    // SAFETY: the module lives, and the function has this signature.
    unsafe { jitfd::Entry::<Function>::at(address)(argument) }
}

fn refused_without(_: &Jit) -> Outcome {
    let mut module = JITModule::new(builder()?);
    define_sum(&mut module, 1, None)?;
    let finished = module.finalize_definitions();
    holds(finished.is_err(), || {
        "a function was made by mprotect".into()
    })
}

/// Each calls the one before it, which is executable already.
fn one_by_one(jit: &Jit) -> Outcome {
    let (before_all, _) = executable_mappings()?;
    let mut module = module(jit)?;
    let mut before = None;
    for number in 1..=200 {
        let id = define_sum(&mut module, number, before)?;
        module.finalize_definitions()?;
        equal(
            "a sum",
            call(&module, id, 1000),
            1000 + number * (number + 1) / 2,
        )?;
        before = Some(id);
    }
    equal("writable code", executable_mappings()?.1, 0)?;
    // SAFETY: no function is called any more.
    unsafe { module.free_memory() };
    equal("executable mappings", executable_mappings()?.0, before_all)
}

fn all_at_once(jit: &Jit) -> Outcome {
    let mut module = module(jit)?;
    let mut ids = Vec::new();
    for number in 1..=500 {
        let before = ids.last().copied();
        ids.push(define_sum(&mut module, number, before)?);
    }
    module.finalize_definitions()?;
    for (number, id) in (1..).zip(ids) {
        equal("a sum", call(&module, id, 5), 5 + number * (number + 1) / 2)?;
    }
    // SAFETY: no function is called any more.
    unsafe { module.free_memory() };
    Ok(())
}

/// A counter that can be written, and a constant that can't.
fn with_data(jit: &Jit) -> Outcome {
    let mut module = module(jit)?;
    let mut data = |name: &str, writable: bool| -> Result<_> {
        let id = module.declare_data(name, Linkage::Local, writable, false)?;
        let mut description = DataDescription::new();
        description.define(Box::new(7i64.to_le_bytes()));
        module.define_data(id, &description)?;
        Ok(id)
    };
    let (counter, constant) = (data("counter", true)?, data("constant", false)?);
    let id = define(&mut module, "count", |module, builder, argument| {
        let mut address = |id| {
            let value = module.declare_data_in_func(id, builder.func);
            builder.ins().symbol_value(types::I64, value)
        };
        let (counter, constant) = (address(counter), address(constant));
        let flags = MemFlagsData::trusted();
        let old = builder.ins().load(types::I64, flags, counter, 0);
        let new = builder.ins().iadd(old, argument);
        builder.ins().store(flags, new, counter, 0);
        let seven = builder.ins().load(types::I64, flags, constant, 0);
        builder.ins().imul(new, seven)
    })?;
    module.finalize_definitions()?;
    equal("the first", call(&module, id, 1), 8 * 7)?;
    equal("the second", call(&module, id, 2), 10 * 7)?;
    // SAFETY: no function is called any more.
    unsafe { module.free_memory() };
    Ok(())
}
