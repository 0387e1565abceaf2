// SPDX-License-Identifier: GPL-2.0
// The launcher compiles it in memory by javac, which is a program of Java; then what the
// virtual machine compiles, in four threads.
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Programs {
    interface Shape {
        double area();
    }

    record Circle(double radius) implements Shape {
        public double area() {
            return Math.PI * radius * radius;
        }
    }

    record Square(double side) implements Shape {
        public double area() {
            return side * side;
        }
    }

    static int fib(int n) {
        return n < 2 ? n : fib(n - 1) + fib(n - 2);
    }

    static long sieve(int limit) {
        BitSet composite = new BitSet(limit);
        long sum = 0;
        for (int i = 2; i < limit; i++) {
            if (composite.get(i)) continue;
            sum += i;
            for (long j = (long) i * i; j < limit; j += i) composite.set((int) j);
        }
        return sum;
    }

    static String shapes(int count) {
        double sum = 0;
        for (int i = 0; i < count; i++) {
            Shape shape = i % 3 == 0 ? new Circle(i % 17) : new Square(i % 13);
            sum += shape.area();
        }
        return String.format(Locale.ROOT, "%.3f", sum);
    }

    static String words(int count) {
        Map<String, Integer> seen = new TreeMap<>();
        for (int i = 0; i < count; i++)
            seen.merge(Long.toString((long) i * i % 65537, 36), 1, Integer::sum);
        return seen.entrySet().stream().sorted(Map.Entry.<String, Integer>comparingByValue().reversed()
            .thenComparing(Map.Entry.comparingByKey())).limit(3).map(Object::toString).collect(Collectors.joining(" "));
    }

    static int caught(int count) {
        int caught = 0;
        Object[] things = {"text", null, 7};
        for (int i = 0; i < count; i++) {
            try {
                caught += things[i % 3].hashCode() & 1;
            } catch (NullPointerException e) {
                caught++;
            }
        }
        return caught;
    }

    static String all() {
        return String.join("\n", "" + fib(24), "" + sieve(200000), shapes(100000), words(20000), "" + caught(30000));
    }

    public static void main(String[] arguments) throws Exception {
        try (ExecutorService threads = Executors.newFixedThreadPool(4)) {
            List<Future<String>> answers = threads.invokeAll(Collections.nCopies(4, Programs::all));
            Set<String> different = new TreeSet<>();
            for (Future<String> answer : answers) different.add(answer.get());
            different.forEach(System.out::println);
        }
    }
}
