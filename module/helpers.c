// SPDX-License-Identifier: GPL-2.0
/*
 * What Rust can't reach: static inlines, macros, and types that the kernel's
 * bindings lack. No policy and no state; each function says what its caller
 * must hold. Declared once, in ffi.rs.
 */
#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/kdebug.h>
#include <linux/kthread.h>
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/percpu.h>
#include <linux/percpu_counter.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/task_work.h>
#include <linux/tick.h>
#include <linux/uaccess.h>
#include <linux/uprobes.h>
#include <linux/user_namespace.h>
#include <asm/cpu_device_id.h>
#include <asm/cpufeature.h>
#include <asm/desc.h>
#include <asm/intel-family.h>
#include <asm/mmu_context.h>
#include <asm/pkru.h>
#include <asm/trapnr.h>
#include <asm/tlbflush.h>

/* What jit_pte_exchange() found. */
#define JIT_PTE_PRESENT		1
#define JIT_PTE_ACCESSED	2

/*
 * asm/tlbflush.h hides this from modules; the variable itself is exported, for
 * this very use (to tell whether a CPU needs an interrupt).
 */
struct tlb_state_shared {
	bool is_lazy;
};
DECLARE_PER_CPU_SHARED_ALIGNED(struct tlb_state_shared, cpu_tlbstate_shared);

bool jit_cpu_is_lazy(int cpu);
bool jit_cpu_is_lazy(int cpu)
{
	return READ_ONCE(per_cpu(cpu_tlbstate_shared.is_lazy, cpu));
}

/*
 * Whether this CPU has @mm loaded, or is about to leave it: every way back to
 * user mode in another address space compares generations first. (Where the
 * loaded one differs from active_mm, as in exec and around use_temporary_mm(),
 * the CPU loads an address space, generation and all, before it runs user code.)
 */
unsigned long jit_active_mm(void);
unsigned long jit_active_mm(void)
{
	return (unsigned long)READ_ONCE(current->active_mm);
}

/*
 * Takes this CPU out of the CPU mask of @mm if it has another address space loaded,
 * as flush_tlb_func() does on a CPU that was interrupted for nothing. In an
 * interrupt: switch_mm_irqs_off() changes CR3, mask and all with interrupts off,
 * and sets the CPU's bit, if it is clear, before it compares generations. CR3 tells
 * what is loaded, where active_mm does not: see above.
 */
void jit_mm_leave(struct mm_struct *mm);
void jit_mm_leave(struct mm_struct *mm)
{
	int cpu = raw_smp_processor_id();

	if (cpumask_test_cpu(cpu, mm_cpumask(mm)) &&
	    read_cr3_pa() != __pa(mm->pgd))
		cpumask_clear_cpu(cpu, mm_cpumask(mm));
}

bool jit_cpu_ticks(int cpu);
bool jit_cpu_ticks(int cpu)
{
	return !tick_nohz_full_cpu(cpu);
}

/*
 * The page table lookup of rmap: no mmap_lock. The caller holds i_mmap_rwsem
 * of the mapping that links @vma, or @vma's own lock; either keeps the tables
 * (free_pgtables() unlinks the VMA first, and huge pages never appear in a
 * VM_PFNMAP area). Returns NULL where no table exists.
 */
pte_t *jit_pte_lock(struct vm_area_struct *vma, unsigned long addr,
		    spinlock_t **ptlp);
pte_t *jit_pte_lock(struct vm_area_struct *vma, unsigned long addr,
		    spinlock_t **ptlp)
{
	struct mm_struct *mm = vma->vm_mm;
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd, pmdval;

	if (pgd_none(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (pud_none(*pud) || pud_leaf(*pud))
		return NULL;
	pmd = pmd_offset(pud, addr);
	pmdval = pmdp_get_lockless(pmd);
	if (pmd_none(pmdval) || pmd_leaf(pmdval))
		return NULL;

	*ptlp = pte_lockptr(mm, &pmdval);
	spin_lock(*ptlp);
	/*
	 * mremap() moves whole tables, under other locks. If it has, the entry
	 * is met in the new VMA; if it does from here on, the entry goes with
	 * the table, as we leave it.
	 */
	if (unlikely(!pmd_same(pmdval, pmdp_get_lockless(pmd)))) {
		spin_unlock(*ptlp);
		return NULL;
	}
	return pte_offset_kernel(&pmdval, addr);
}

void jit_pte_unlock(spinlock_t *ptl);
void jit_pte_unlock(spinlock_t *ptl)
{
	spin_unlock(ptl);
}

bool jit_pte_is_none(pte_t *ptep);
bool jit_pte_is_none(pte_t *ptep)
{
	return pte_none(ptep_get(ptep));
}

/* Whether jit_pte_exchange() would exchange anything. */
bool jit_pte_is_present(pte_t *ptep);
bool jit_pte_is_present(pte_t *ptep)
{
	return pte_present(ptep_get(ptep));
}

/* Whether an entry, locked or absent, already points to @pfn. */
bool jit_pte_points_to(pte_t *ptep, unsigned long pfn);
bool jit_pte_points_to(pte_t *ptep, unsigned long pfn)
{
	pte_t pte = ptep_get(ptep);

	return pte_present(pte) && pte_pfn(pte) == pfn;
}

/*
 * Whether an entry of @mm may have been removed whose translation is still in
 * a TLB: munmap() clears entries first, and flushes before it unlinks the VMA.
 * Called after the page table lock was taken, which orders the two.
 */
bool jit_mm_flush_pending(struct mm_struct *mm);
bool jit_mm_flush_pending(struct mm_struct *mm)
{
	return mm_tlb_flush_pending(mm);
}

/*
 * The protection of an entry that is there stays, whatever the VMA has by now:
 * mprotect() changes vm_page_prot first, without our locks, and then flushes
 * only if it finds an entry with another protection (pte_needs_flush()). An
 * absent entry gets the VMA's, which a fault holds still by the VMA's lock. None
 * allows writing, VM_MAYWRITE being clear. The Accessed bit starts clear, so
 * that finding it set means that a CPU used this very entry.
 */
static pte_t jit_mk_pte(struct vm_area_struct *vma, pte_t old,
			unsigned long pfn)
{
	pgprot_t prot = vma->vm_page_prot;

	if (pte_present(old))
		prot = pte_pgprot(old);
	return pte_mkold(pte_mkspecial(pfn_pte(pfn, prot)));
}

/*
 * Points an entry to @pfn. Locked by jit_pte_lock(), so that only a CPU changes
 * it meanwhile, and only its Accessed bit. One atomic exchange: the entry is
 * never empty in between, and that bit is either seen here or set in the new
 * entry.
 */
int jit_pte_exchange(struct vm_area_struct *vma, unsigned long addr,
		     pte_t *ptep, unsigned long pfn);
int jit_pte_exchange(struct vm_area_struct *vma, unsigned long addr,
		     pte_t *ptep, unsigned long pfn)
{
	pte_t new = jit_mk_pte(vma, ptep_get(ptep), pfn);
	pte_t old;

	old.pte = xchg(&ptep->pte, new.pte);

	return (pte_present(old) ? JIT_PTE_PRESENT : 0) |
	       (pte_young(old) ? JIT_PTE_ACCESSED : 0);
}

/* Whether secondary MMUs (KVM) mirror this address space. */
bool jit_mm_has_notifiers(struct mm_struct *mm);
bool jit_mm_has_notifiers(struct mm_struct *mm)
{
	return mm_has_notifiers(mm);
}

/*
 * After the page tables of @mm were changed: every CPU that is not using @mm
 * now flushes before it does. Returns the CPUs that may be using it. The
 * atomic orders the change before the caller's look at the mask (as
 * inc_mm_tlb_gen() does, which modules can't call).
 */
const unsigned long *jit_mm_bump(struct mm_struct *mm, bool *is_global);
const unsigned long *jit_mm_bump(struct mm_struct *mm, bool *is_global)
{
	atomic64_inc_return(&mm->context.tlb_gen);
#ifdef CONFIG_BROADCAST_TLB_FLUSH
	/* Under a global ASID neither the mask nor the generation is kept. */
	if (cpu_feature_enabled(X86_FEATURE_INVLPGB) &&
	    (smp_load_acquire(&mm->context.global_asid) ||
	     READ_ONCE(mm->context.asid_transition)))
		*is_global = true;
#endif
	return cpumask_bits(mm_cpumask(mm));
}

/*
 * The whole user TLB of the address space that this CPU has loaded. Where the
 * CPU can do no better that is: read CR3, write it back. So interrupts are off,
 * as around the kernel's own local flush: some change CR3 (flush_tlb_func()
 * leaves a lazy address space whose page tables are freed, or moves to a
 * global ASID), and the old value would come back behind its back.
 */
void jit_flush_local(void);
void jit_flush_local(void)
{
#ifdef CONFIG_PARAVIRT_XXL
	unsigned long flags;

	local_irq_save(flags);
	pv_ops.mmu.flush_tlb_user();
	local_irq_restore(flags);
#else
#error "jit needs CONFIG_PARAVIRT_XXL: the kernel's own flush is not exported otherwise"
#endif
}

/* Everything, under every address space identifier. */
void jit_flush_local_all(void);
void jit_flush_local_all(void)
{
	pv_ops.mmu.flush_tlb_kernel();
}

void jit_flush_local_one(unsigned long addr);
void jit_flush_local_one(unsigned long addr)
{
	pv_ops.mmu.flush_tlb_one_user(addr);
}

/* The parameter in parameters.c: 1, 0, or -1 for what the vendor promises. */
extern int jit_accessed_bit;

/*
 * Whether an entry whose Accessed bit is clear was never cached. Intel promises
 * it (SDM volume 3, "Accessed and Dirty Flags" and "Details of TLB Use"), but for
 * Knights Landing and Mill, which may set the bit late (erratum KNL4). No
 * statement of another vendor is known.
 */
static const struct x86_cpu_id late_accessed[] = {
	X86_MATCH_VFM(INTEL_XEON_PHI_KNL, 0),
	X86_MATCH_VFM(INTEL_XEON_PHI_KNM, 0),
	{}
};

bool jit_accessed_is_promised(void);
bool jit_accessed_is_promised(void)
{
	if (jit_accessed_bit >= 0)
		return jit_accessed_bit;
	return boot_cpu_data.x86_vendor == X86_VENDOR_INTEL &&
	       !x86_match_cpu(late_accessed);
}

/* A reason for which this machine can't be served, or NULL. */
const char *jit_unsupported(void);
const char *jit_unsupported(void)
{
	if (cpu_feature_enabled(X86_FEATURE_XENPV))
		return "Xen PV guests do not own their page tables";
	if (!boot_cpu_has(X86_FEATURE_NX))
		return "the CPU has no NX bit";
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		return "PREEMPT_RT is not supported yet";
	return NULL;
}

/* struct die_args, opened for Rust. Called with a DIE_* of its notifier. */
struct pt_regs *jit_die_int3_regs(unsigned long val, void *data);
struct pt_regs *jit_die_int3_regs(unsigned long val, void *data)
{
	struct die_args *args = data;

	if (val != DIE_INT3 || !args->regs || !user_mode(args->regs))
		return NULL;
	return args->regs;
}

/*
 * Whom pages and regions of the caller are counted for. Whoever is in a user
 * namespace counts for the user who made it (the outermost one whose owner is
 * not root): subordinate ids are no more than one user. What root has set up,
 * such as containers with ranges of ids of their own, counts by effective id.
 */
unsigned int jit_accountable_uid(void);
unsigned int jit_accountable_uid(void)
{
	struct user_namespace *ns = current_user_ns();
	kuid_t uid = current_euid();

	for (; ns->parent; ns = ns->parent)
		if (!uid_eq(ns->owner, GLOBAL_ROOT_UID))
			uid = ns->owner;
	return __kuid_val(uid);
}

/* Not audited: who lacks it is refused by a bound, not by a policy. */
bool jit_may_exceed_totals(void);
bool jit_may_exceed_totals(void)
{
	return capable_noaudit(CAP_SYS_RESOURCE);
}

/*
 * Has the pages of code count in @mm, where the OOM killer and
 * /proc/pid/status look. Not add_mm_counter(), whose trace point modules can't
 * call. The caller holds a reference (mmgrab) until it has taken all of them
 * out again: __mmdrop() looks for what is left over.
 */
void jit_mm_count(struct mm_struct *mm, long pages);
void jit_mm_count(struct mm_struct *mm, long pages)
{
	percpu_counter_add(&mm->rss_stat[MM_SHMEMPAGES], pages);
}

/* Whether nobody runs in @mm any more. */
bool jit_mm_is_dead(struct mm_struct *mm);
bool jit_mm_is_dead(struct mm_struct *mm)
{
	return !atomic_read(&mm->mm_users);
}

int jit_mutex_lock_killable(struct mutex *lock);
int jit_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

/* The registers with which the current task goes back to user mode. */
struct pt_regs *jit_user_regs(void);
struct pt_regs *jit_user_regs(void)
{
	return task_pt_regs(current);
}

/*
 * The linear address of the byte before @regs->ip. Of the code segments of user
 * mode only those of an LDT have a base; none of these is a 64-bit one, so
 * addresses wrap at 4 GiB. With interrupts off an LDT stays: see load_mm_ldt().
 */
unsigned long jit_trap_address(const struct pt_regs *regs);
unsigned long jit_trap_address(const struct pt_regs *regs)
{
	unsigned long addr = regs->ip - 1;
#ifdef CONFIG_MODIFY_LDT_SYSCALL
	if (unlikely(regs->cs & SEGMENT_TI_MASK)) {
		const struct ldt_struct *ldt;
		unsigned long flags;

		local_irq_save(flags);
		ldt = smp_load_acquire(&current->mm->context.ldt);
		if (ldt && regs->cs >> 3 < ldt->nr_entries)
			addr = (u32)(addr + get_desc_base(&ldt->entries[regs->cs >> 3]));
		local_irq_restore(flags);
	}
#endif
	return addr;
}

/* User mode always has interrupts on. For the handler of its exceptions. */
void jit_irqs_on(void);
void jit_irqs_on(void)
{
	local_irq_enable();
}

void jit_irqs_off(void);
void jit_irqs_off(void)
{
	local_irq_disable();
}

/* Whether uprobes claim every int3 of the current process. */
bool jit_has_uprobes(void);
bool jit_has_uprobes(void)
{
#ifdef CONFIG_UPROBES
	/* As uprobe_pre_sstep_notifier(). */
	return mm_flags_test(MMF_HAS_UPROBES, current->mm) ||
	       (current->utask && current->utask->return_instances);
#else
	return false;
#endif
}

/* What uprobe_pre_sstep_notifier() does then. */
void jit_tell_uprobes(void);
void jit_tell_uprobes(void)
{
	set_thread_flag(TIF_UPROBE);
}

/*
 * Called by a task work of TWA_RESUME: whether resume_user_mode_work() runs it.
 * That clears the flag first, and the flags are looked at again before a signal
 * is delivered. Else get_signal() may, which delivers one right behind.
 */
bool jit_is_before_signals(void);
bool jit_is_before_signals(void)
{
	return !test_thread_flag(TIF_NOTIFY_RESUME);
}

/* What do_trap() does for an int3 of user mode. */
void jit_raise_sigtrap(void);
void jit_raise_sigtrap(void)
{
	current->thread.error_code = 0;
	current->thread.trap_nr = X86_TRAP_BP;
	force_sig(SIGTRAP);
}

/*
 * A byte of user memory that is there, whatever protection keys say: execute-only
 * memory can be read so. False if that would fault. Never sleeps.
 */
bool jit_user_byte(unsigned long addr, u8 *byte);
bool jit_user_byte(unsigned long addr, u8 *byte)
{
	unsigned long flags;
	u32 pkru;
	bool failed;

	local_irq_save(flags);
	pkru = read_pkru();
	write_pkru(0);
	failed = copy_from_user_nofault(byte, (void __user *)addr, 1);
	write_pkru(pkru);
	local_irq_restore(flags);
	return !failed;
}

/* Fails if the caller is being killed. */
int jit_mmap_read_lock_killable(struct mm_struct *mm);
int jit_mmap_read_lock_killable(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}

/*
 * A byte as a debugger sees it, protection or not; may sleep. False if there is
 * nothing.
 */
bool jit_debugger_byte(unsigned long addr, u8 *byte);
bool jit_debugger_byte(unsigned long addr, u8 *byte)
{
	return access_process_vm(current, addr, byte, 1, FOLL_FORCE) == 1;
}

mempool_t *jit_works_create(int reserve);
mempool_t *jit_works_create(int reserve)
{
	return mempool_create_kmalloc_pool(reserve, sizeof(struct callback_head));
}

/*
 * @func is called before the current task returns to user mode. It holds the
 * module, and ends with module_put(). Never sleeps. Returns false if there is no
 * memory, or if the module or the task is at its end.
 */
bool jit_works_add(mempool_t *works, task_work_func_t func);
bool jit_works_add(mempool_t *works, task_work_func_t func)
{
	struct callback_head *work;

	if (!try_module_get(THIS_MODULE))
		return false;
	work = mempool_alloc(works, GFP_ATOMIC);
	if (work) {
		init_task_work(work, func);
		if (!task_work_add(current, work, TWA_RESUME))
			return true;
		mempool_free(work, works);
	}
	module_put(THIS_MODULE);
	return false;
}

void jit_module_put(void);
void jit_module_put(void)
{
	module_put(THIS_MODULE);
}

/*
 * Waits until nobody is in the last instructions of a function that has called
 * jit_module_put(): a task there may be preempted, but doesn't sleep.
 */
void jit_wait_for_tails(void);
void jit_wait_for_tails(void)
{
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "jit needs CONFIG_TASKS_RCU on a preemptible kernel: KPROBES or FUNCTION_TRACER"
#endif
	synchronize_rcu_tasks();
}

void *jit_page_address(struct page *page);
void *jit_page_address(struct page *page)
{
	return page_address(page);
}

/*
 * Eight bytes at a time: where each store is slow because a CPU has just
 * executed the page (self-modifying code checks), bytes cost eight times that.
 */
void jit_copy_words(void *to, const void *from, size_t words);
void jit_copy_words(void *to, const void *from, size_t words)
{
	asm volatile("rep movsq"
		     : "+D" (to), "+S" (from), "+c" (words) : : "memory");
}

void jit_fill_words(void *to, u64 value, size_t words);
void jit_fill_words(void *to, u64 value, size_t words)
{
	asm volatile("rep stosq"
		     : "+D" (to), "+c" (words) : "a" (value) : "memory");
}

unsigned long jit_page_pfn(struct page *page);
unsigned long jit_page_pfn(struct page *page)
{
	return page_to_pfn(page);
}

/*
 * A mapping of its own, so that i_mmap lists the VMAs of one open file only.
 * @host is the device's inode; it outlives every VMA that uses the mapping.
 */
void jit_mapping_init(struct address_space *mapping, struct inode *host);
void jit_mapping_init(struct address_space *mapping, struct inode *host)
{
	address_space_init_once(mapping);
	mapping->host = host;
	mapping->a_ops = &empty_aops;
	mapping_set_gfp_mask(mapping, GFP_KERNEL);
	init_rwsem(&mapping->invalidate_lock);
}

void jit_vm_flags_set(struct vm_area_struct *vma, bool is_inherited);
void jit_vm_flags_set(struct vm_area_struct *vma, bool is_inherited)
{
	vm_flags_mod(vma, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP |
		     (is_inherited ? 0 : VM_DONTCOPY), VM_MAYWRITE);
}

struct task_struct *jit_kthread_run(int (*fn)(void *data), void *data);
struct task_struct *jit_kthread_run(int (*fn)(void *data), void *data)
{
	return kthread_run(fn, data, "jit_reclaim");
}

/*
 * Sleeps for @pause jiffies, or until woken while *@kept is zero; *@sleeps says
 * that. Not at all if the kthread is to stop or *@work is not zero. Who changes
 * one of these wakes the kthread afterwards, for *@kept if *@sleeps is set.
 */
void jit_kthread_sleep(const int *work, const long *kept, int *sleeps,
		       long pause);
void jit_kthread_sleep(const int *work, const long *kept, int *sleeps,
		       long pause)
{
	set_current_state(TASK_INTERRUPTIBLE);
	if (!kthread_should_stop() && !smp_load_acquire(work)) {
		WRITE_ONCE(*sleeps, 1);
		/* Pairs with the full barrier of the addition to *kept. */
		smp_mb();
		if (READ_ONCE(*kept))
			WRITE_ONCE(*sleeps, 0);
		else
			pause = MAX_SCHEDULE_TIMEOUT;
		schedule_timeout(pause);
		WRITE_ONCE(*sleeps, 0);
	}
	__set_current_state(TASK_RUNNING);
}

/* Whether the caller is being killed: what is long should end. */
bool jit_is_killed(void);
bool jit_is_killed(void)
{
	return fatal_signal_pending(current);
}

/* Sleeps for a tick, or less if the caller is killed. */
void jit_pause(void);
void jit_pause(void)
{
	schedule_timeout_killable(1);
}

void jit_cond_resched(void);
void jit_cond_resched(void)
{
	cond_resched();
}
