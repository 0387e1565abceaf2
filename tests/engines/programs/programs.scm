;; SPDX-License-Identifier: GPL-2.0
;; What Guile compiles: loops, closures, lists, continuations; 100 procedures by eval.
(use-modules (srfi srfi-1) (ice-9 control))

(define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))

(define (primes limit)
  (let ((composite (make-bitvector limit #f)))
    (let loop ((i 2) (count 0))
      (cond ((= i limit) count)
            ((bitvector-bit-set? composite i) (loop (+ i 1) count))
            (else (do ((j (* i i) (+ j i))) ((>= j limit))
                    (bitvector-set-bit! composite j))
                  (loop (+ i 1) (+ count 1)))))))

(define (procedures count)
  (fold (lambda (factor sum)
          (let ((f (eval `(lambda (k) (let loop ((i 0) (t 0))
                                        (if (= i k) t (loop (+ i 1) (modulo (+ (* t ,factor) i) 10007)))))
                         (interaction-environment))))
            (+ sum (f 300) (f 300))))
        0 (iota count 1)))

(define (escapes count)
  (let loop ((i 0) (sum 0))
    (if (= i count) sum
        (loop (+ i 1) (+ sum (call/ec (lambda (out) (for-each (lambda (x) (if (= x (modulo i 7)) (out x))) (iota 7)) 0)))))))

(format #t "~a~%~a~%~a~%~a~%" (fib 22) (primes 100000) (procedures 100) (escapes 20000))
(format #t "~a~%" (list-head (sort (map (lambda (i) (number->string (modulo (* i i) 65537) 16)) (iota 3000)) string<?) 5))
