// SPDX-License-Identifier: GPL-2.0
/*
 * Two ways to let the kernel do the work of a trampoline, as peers to measure
 * against. Both have a file for each trampoline, with a register context and a
 * stack context, and a mapping of one page for it.
 *
 * The page fault (the trampoline file descriptor): the mapping has no permissions,
 * so executing it faults. Here the fault reaches the driver: the kernel's own
 * fault handler refuses a mapping that allows nothing before it asks anybody, so
 * VM_READ is set where user space asked for PROT_NONE. No page table entry is ever
 * made, and reading it is SIGSEGV all the same.
 *
 * The system call (the third alternative of the mail, see
 * Documentation/trampolines.rst): the page is shared code
 * that saves two registers, loads a number and enters the kernel. An unpatched
 * kernel has no number to give away, so the function of all unused numbers is
 * redirected, as livepatch does it. The entry, the dispatch and the exit are those
 * of any call; the redirection is what a call of its own would not cost. The mapping
 * is asked for with PROT_READ and made executable here: anonymous files are on a
 * file system without execution.
 *
 * Left out, next to a real interface: changing or reading a context that is
 * mapped, lists of allowed targets, 32-bit programs, security hooks. Never
 * unloaded: a task may sleep in the redirected call.
 *
 * Locks: trampfd_lock keeps a context whole while it is written. It is written
 * only before it is first mapped, and read only through a mapping, so that the
 * fault and the call read it without a lock. They run under the VMA's lock or
 * mmap_lock; both are dropped before user memory is waited for.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/ptrace.h>
#include "trampfd.h"

struct trampfd {
	bool mapped;
	u32 set;			/* a bit for each register */
	u32 pushes;
	u64 regs[TRAMPFD_NAMES];
	u64 stack[TRAMPFD_PUSHES];	/* as in memory: the last pushed is first */
};

static const u16 reg_offset[TRAMPFD_NAMES] = {
	offsetof(struct pt_regs, ax), offsetof(struct pt_regs, cx),
	offsetof(struct pt_regs, dx), offsetof(struct pt_regs, bx),
	offsetof(struct pt_regs, sp), offsetof(struct pt_regs, bp),
	offsetof(struct pt_regs, si), offsetof(struct pt_regs, di),
	offsetof(struct pt_regs, r8), offsetof(struct pt_regs, r9),
	offsetof(struct pt_regs, r10), offsetof(struct pt_regs, r11),
	offsetof(struct pt_regs, r12), offsetof(struct pt_regs, r13),
	offsetof(struct pt_regs, r14), offsetof(struct pt_regs, r15),
	offsetof(struct pt_regs, ip),
};

/*
 * endbr64; push %rax; push %rcx; mov $TRAMPFD_NR, %eax; syscall. The system call
 * instruction itself destroys rcx, an argument, and r11, which no function keeps.
 */
static const u8 stub[] = {
	0xf3, 0x0f, 0x1e, 0xfa, 0x50, 0x51,
	0xb8, TRAMPFD_NR & 0xff, TRAMPFD_NR >> 8, 0, 0,
	0x0f, 0x05,
};

struct saved {
	u64 cx, ax;
};

static DEFINE_MUTEX(trampfd_lock);
static struct page *stub_page;

/*
 * Sets the registers and pushes the values. Where waiting for user memory is not
 * possible, false says that it would be needed; else that there is none. The
 * registers are untouched then.
 */
static bool enter(const struct trampfd *t, struct pt_regs *regs, unsigned long sp, bool may_wait)
{
	const size_t size = t->pushes * sizeof(t->stack[0]);
	unsigned long set = t->set;
	unsigned int name;

	if (size) {
		void __user *to = (void __user *)(sp - size);

		if (may_wait ? copy_to_user(to, t->stack, size) :
			       copy_to_user_nofault(to, t->stack, size))
			return false;
	}
	for_each_set_bit(name, &set, TRAMPFD_NAMES)
		*(unsigned long *)((char *)regs + reg_offset[name]) = t->regs[name];
	regs->sp = sp - size;
	return true;
}

/* The same from the stub, which has saved two registers. */
static bool enter_saved(const struct trampfd *t, struct pt_regs *regs, bool may_wait)
{
	const void __user *from = (const void __user *)regs->sp;
	struct pt_regs before = *regs;
	struct saved saved;

	if (may_wait ? copy_from_user(&saved, from, sizeof(saved)) :
		       copy_from_user_nofault(&saved, from, sizeof(saved)))
		return false;
	regs->ax = saved.ax;
	regs->cx = saved.cx;
	if (enter(t, regs, regs->sp + sizeof(saved), may_wait))
		return true;
	*regs = before;
	return false;
}

static vm_fault_t trampfd_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct pt_regs *regs = task_pt_regs(current);
	const unsigned int want = FAULT_FLAG_INSTRUCTION | FAULT_FLAG_USER;
	struct file *file;

	if (vma->vm_flags & VM_EXEC) {
		get_page(stub_page);
		vmf->page = stub_page;
		return 0;
	}
	/* An instruction before the page may reach into it: that is no invocation. */
	if ((vmf->flags & want) != want || regs->ip != vma->vm_start || !user_64bit_mode(regs))
		return VM_FAULT_SIGSEGV;
	if (enter(vma->vm_file->private_data, regs, regs->sp, false))
		return VM_FAULT_NOPAGE;

	file = get_file(vma->vm_file);
	release_fault_lock(vmf);
	if (!enter(file->private_data, regs, regs->sp, true))
		force_sig(SIGSEGV);
	fput(file);
	/* NOPAGE for the core, which would map a page; COMPLETED: no lock is held. */
	return VM_FAULT_NOPAGE | VM_FAULT_COMPLETED;
}

/* Without this the core would take mmap_lock for each fault, not the VMA's. */
static vm_fault_t trampfd_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	return 0;
}

static int trampfd_mprotect(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			    unsigned long flags)
{
	return -EACCES;
}

static const struct vm_operations_struct trampfd_vm_ops = {
	.fault = trampfd_fault,
	.map_pages = trampfd_map_pages,
	.mprotect = trampfd_mprotect,
};

static int keep_table(pte_t *pte, unsigned long addr, void *data)
{
	return 0;
}

static int trampfd_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct trampfd *t = file->private_data;
	vm_flags_t asked = vma->vm_flags & (VM_READ | VM_WRITE | VM_EXEC);
	int error;

	if (vma->vm_end - vma->vm_start != PAGE_SIZE || vma->vm_pgoff)
		return -EINVAL;
	if (asked && asked != VM_READ)
		return -EOPNOTSUPP;
	mutex_lock(&trampfd_lock);
	t->mapped = t->set & BIT(TRAMPFD_RIP);
	mutex_unlock(&trampfd_lock);
	if (!t->mapped)
		return -EINVAL;
	/* Where there is no page table, the core would allocate one for each fault. */
	error = apply_to_page_range(vma->vm_mm, vma->vm_start, PAGE_SIZE, keep_table, NULL);
	if (error)
		return error;
	vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTDUMP | VM_READ | (asked ? VM_EXEC : VM_IO),
		     VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC);
	vma->vm_ops = &trampfd_vm_ops;
	return 0;
}

static int write_regs(struct trampfd *t, const struct trampfd_reg *regs, size_t count)
{
	u32 set = 0;

	for (size_t i = 0; i < count; i++) {
		u32 name = regs[i].name;

		if (name >= TRAMPFD_NAMES || name == TRAMPFD_RSP || regs[i].reserved ||
		    set & BIT(name))
			return -EINVAL;
		if (name == TRAMPFD_RIP && regs[i].value >= TASK_SIZE_MAX)
			return -EINVAL;
		set |= BIT(name);
	}
	t->set = set;
	for (size_t i = 0; i < count; i++)
		t->regs[regs[i].name] = regs[i].value;
	return 0;
}

static void write_stack(struct trampfd *t, const u64 *values, size_t count)
{
	t->pushes = count;
	for (size_t i = 0; i < count; i++)
		t->stack[count - 1 - i] = values[i];
}

static ssize_t trampfd_write(struct file *file, const char __user *from, size_t len, loff_t *pos)
{
	union {
		struct trampfd_reg regs[TRAMPFD_NAMES];
		u64 values[TRAMPFD_PUSHES];
	} in;
	struct trampfd *t = file->private_data;
	bool stack = *pos == TRAMPFD_STACK;
	size_t each = stack ? sizeof(in.values[0]) : sizeof(in.regs[0]);
	int error = 0;

	if (!stack && *pos != TRAMPFD_REGS)
		return -EINVAL;
	if (len > (stack ? sizeof(in.values) : sizeof(in.regs)) || len % each)
		return -EINVAL;
	if (copy_from_user(&in, from, len))
		return -EFAULT;
	mutex_lock(&trampfd_lock);
	if (t->mapped)
		error = -EBUSY;
	else if (stack)
		write_stack(t, in.values, len / each);
	else
		error = write_regs(t, in.regs, len / each);
	mutex_unlock(&trampfd_lock);
	return error ?: len;
}

static int trampfd_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations trampfd_fops = {
	.owner = THIS_MODULE,
	.write = trampfd_write,
	.mmap = trampfd_mmap,
	.release = trampfd_release,
};

static long device_ioctl(struct file *device, unsigned int request, unsigned long argument)
{
	struct trampfd *t;
	struct file *file;
	int fd;

	if (request != TRAMPFD_CREATE)
		return -ENOTTY;
	t = kzalloc(sizeof(*t), GFP_KERNEL_ACCOUNT);
	if (!t)
		return -ENOMEM;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		kfree(t);
		return fd;
	}
	file = anon_inode_getfile("[trampfd]", &trampfd_fops, t, O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		kfree(t);
		return PTR_ERR(file);
	}
	file->f_mode |= FMODE_PWRITE;
	fd_install(fd, file);
	return fd;
}

static const struct file_operations device_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = device_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "trampfd",
	.mode = 0666,
	.fops = &device_fops,
};

/* The mapping that the stub was entered in, with a lock held; or NULL. */
static struct vm_area_struct *lock_stub(unsigned long addr, bool *mmap_locked)
{
	struct vm_area_struct *vma = lock_vma_under_rcu(current->mm, addr);

	*mmap_locked = !vma;
	if (!vma) {
		mmap_read_lock(current->mm);
		vma = vma_lookup(current->mm, addr);
	}
	return vma;
}

static void unlock_stub(struct vm_area_struct *vma, bool mmap_locked)
{
	if (mmap_locked)
		mmap_read_unlock(current->mm);
	else
		vma_end_read(vma);
}

/* Instead of the function that all unused numbers of the 64-bit table share. */
static long unused_call(const struct pt_regs *unused)
{
	struct pt_regs *regs = task_pt_regs(current);
	struct file *file = NULL;
	struct vm_area_struct *vma;
	bool mmap_locked, done;

	if (regs->orig_ax != TRAMPFD_NR || !user_64bit_mode(regs))
		return -ENOSYS;
	vma = lock_stub(regs->ip, &mmap_locked);
	if (!vma || vma->vm_ops != &trampfd_vm_ops || !(vma->vm_flags & VM_EXEC) ||
	    regs->ip != vma->vm_start + sizeof(stub)) {
		unlock_stub(vma, mmap_locked);
		return -ENOSYS;
	}
	done = enter_saved(vma->vm_file->private_data, regs, false);
	if (!done)
		file = get_file(vma->vm_file);
	unlock_stub(vma, mmap_locked);
	if (!done) {
		done = enter_saved(file->private_data, regs, true);
		fput(file);
	}
	/* As after a fault: a handler that returns comes to the instruction again. */
	if (!done) {
		force_sig(SIGSEGV);
		regs->ip -= 2;
		regs->ax = TRAMPFD_NR;
	}
	/* rax is no result, so no signal may restart the call because of it. */
	regs->orig_ax = -1;
	return regs->ax;
}

static void notrace redirect(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)unused_call);
}

static struct ftrace_ops redirection = {
	.func = redirect,
	.flags = FTRACE_OPS_FL_IPMODIFY,
};

/* The function has more names than one; ftrace knows it by the first. */
static int __init find_unused_call(void)
{
	static char names[][24] = { "__do_sys_ni_syscall", "__x64_sys_ni_syscall" };
	int error = -ENOENT;

	for (size_t i = 0; error && i < ARRAY_SIZE(names); i++)
		error = ftrace_set_filter(&redirection, names[i], strlen(names[i]), 1);
	return error;
}

static int __init trampfd_init(void)
{
	int error;

	stub_page = alloc_page(GFP_KERNEL);
	if (!stub_page)
		return -ENOMEM;
	memset(page_address(stub_page), 0xcc, PAGE_SIZE);
	memcpy(page_address(stub_page), stub, sizeof(stub));
	error = find_unused_call();
	if (!error)
		error = register_ftrace_function(&redirection);
	if (error)
		goto free;
	error = misc_register(&device);
	if (!error)
		return 0;
	unregister_ftrace_function(&redirection);
free:
	__free_page(stub_page);
	return error;
}
module_init(trampfd_init);

MODULE_DESCRIPTION("Trampolines that the kernel executes: a peer for benchmarks");
MODULE_LICENSE("GPL");
