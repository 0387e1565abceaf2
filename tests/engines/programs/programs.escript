#!/usr/bin/env escript
%% SPDX-License-Identifier: GPL-2.0
%% Erlang's JIT compiles each module that is loaded: those of the compiler, and this one.
-mode(compile).

fib(N) when N < 2 -> N;
fib(N) -> fib(N - 1) + fib(N - 2).

worker(Parent, K) ->
    Parent ! {K, lists:foldl(fun(I, T) -> (T * K + I) rem 10007 end, 0, lists:seq(1, 3000))}.

main(_) ->
    Parent = self(),
    [spawn(fun() -> worker(Parent, K) end) || K <- lists:seq(1, 100)],
    Sum = lists:sum([receive {K, T} -> T end || K <- lists:seq(1, 100)]),
    io:format("~p~n~p~n~p~n", [fib(22), Sum, re:replace("a1b22", "[0-9]+", "-", [global, {return, list}])]).
