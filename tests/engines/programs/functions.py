# SPDX-License-Identifier: GPL-2.0
# Fifty modules, each compiled by MCJIT, called, and some of them given back.
import ctypes

import llvmlite.binding as llvm

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
target = llvm.Target.from_default_triple().create_target_machine()
engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)

TEXT = """
define i64 @f{n}(i64 %count) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %sum = phi i64 [ 0, %entry ], [ %more, %loop ]
  %product = mul i64 %sum, {n}
  %added = add i64 %product, %i
  %more = urem i64 %added, 1000003
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %count
  br i1 %done, label %end, label %loop
end:
  ret i64 %more
}}
"""

total = 0
for number in range(50):
    module = llvm.parse_assembly(TEXT.format(n=number))
    module.verify()
    engine.add_module(module)
    engine.finalize_object()
    address = engine.get_function_address(f"f{number}")
    total += ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(1000)
    if number % 3 == 0:
        engine.remove_module(module)
print(total)
