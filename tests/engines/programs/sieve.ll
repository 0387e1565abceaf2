; SPDX-License-Identifier: GPL-2.0
; Prints how many primes are below 100000.

@composite = internal global [100000 x i8] zeroinitializer
@text = private constant [5 x i8] c"%ld\0A\00"

declare i32 @printf(ptr, ...)

define i32 @main() {
entry:
  br label %outer
outer:
  %i = phi i64 [ 2, %entry ], [ %i.next, %after ]
  %count = phi i64 [ 0, %entry ], [ %count.next, %after ]
  %place = getelementptr [100000 x i8], ptr @composite, i64 0, i64 %i
  %mark = load i8, ptr %place
  %prime = icmp eq i8 %mark, 0
  %one = zext i1 %prime to i64
  %count.next = add i64 %count, %one
  %first = mul i64 %i, %i
  %inside = icmp ult i64 %first, 100000
  %strike = and i1 %prime, %inside
  br i1 %strike, label %inner, label %after
inner:
  %j = phi i64 [ %first, %outer ], [ %j.next, %inner ]
  %at = getelementptr [100000 x i8], ptr @composite, i64 0, i64 %j
  store i8 1, ptr %at
  %j.next = add i64 %j, %i
  %more = icmp ult i64 %j.next, 100000
  br i1 %more, label %inner, label %after
after:
  %i.next = add i64 %i, 1
  %done = icmp eq i64 %i.next, 100000
  br i1 %done, label %end, label %outer
end:
  %printed = call i32 (ptr, ...) @printf(ptr @text, i64 %count.next)
  ret i32 0
}
