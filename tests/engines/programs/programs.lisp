;; SPDX-License-Identifier: GPL-2.0
;; SBCL compiles each function.
(defun fib (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(format t "~a~%" (fib 22))
(format t "~a~%" (loop for k from 1 to 50 sum (funcall (compile nil `(lambda (x) (mod (* x ,k) 97))) 5)))
